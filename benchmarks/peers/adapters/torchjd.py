"""TorchJD's scalarizers (`pip install torchjd`), called as its documentation does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torchjd import scalarization

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria


def stateless(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """A scalarizer that neither learns nor is told of epochs."""
    scalarize = make()
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            scalarize(torch.stack(losses)).backward()
            optimizer.step()


def learned(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """One whose parameters the optimiser learns."""
    scalarize = make()
    optimizer = SGD([*net.parameters(), *scalarize.parameters()], lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            scalarize(torch.stack(losses)).backward()
            optimizer.step()


def told_of_epochs(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """DWA."""
    scalarize = make()
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            scalarize(torch.stack(losses)).backward()
            optimizer.step()
        scalarize.step()


def told_again(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """FAMO: the losses of a batch before and after the step."""
    scalarize = make()
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            scalarize(torch.stack(losses)).backward()
            optimizer.step()
            with torch.no_grad():
                scalarize.update(torch.stack(criteria(net(x), y)))


class Scalarizer(Way):
    """Any of them."""

    loop = staticmethod(stateless)
    of: Callable[[int], Any]

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.module: Any = self.make(count)

    @classmethod
    def make(cls, count: int = TASKS) -> Any:
        """The package's object."""
        return cls.of(count)

    def combine(self, losses: Losses) -> Tensor:
        total: Tensor = self.module(torch.stack(losses))
        return total


class GeometricMean(Scalarizer):
    """The mean of the logarithms, as a power."""

    of = staticmethod(lambda _: scalarization.GeometricMean())


class UW(Scalarizer):
    """Uncertainty weighting."""

    loop = staticmethod(learned)
    of = staticmethod(scalarization.UW)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())


class IMTLL(UW):
    """The loss half of impartial multi-task learning."""

    of = staticmethod(scalarization.IMTLL)


class DWA(Scalarizer):
    """Dynamic weight average."""

    loop = staticmethod(told_of_epochs)
    of = staticmethod(lambda _: scalarization.DWA())

    def after_epoch(self) -> None:
        self.module.step()


class FAMO(Scalarizer):
    """Fast adaptive multitask optimisation."""

    loop = staticmethod(told_again)
    of = staticmethod(scalarization.FAMO)

    def after_step(self, again: Callable[[], Losses]) -> None:
        with torch.no_grad():
            self.module.update(torch.stack(again()))


WAYS = {f"torchjd {way.__name__}": way for way in (GeometricMean, UW, IMTLL, DWA, FAMO)}
