"""The plain sum, and this package's balancers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import EPOCH, RATE, TASKS, Epochs, criteria, plain
from loss_balance import AdaLoss, DynamicWeightAverage, LogLoss, Scheme, SoftmaxInverse
from loss_balance import UncertaintyWeighting as Uncertainty
from loss_balance.backends.torch import Balancer


class Plain(Way):
    """sum(losses)."""

    loop = staticmethod(plain)

    @staticmethod
    def make() -> None:
        """Nothing."""

    def combine(self, losses: Losses) -> Tensor:
        return sum(losses)  # type: ignore[return-value]  # never the 0 of no losses


class Stacked(Plain):
    """torch.stack(losses).sum()."""

    def combine(self, losses: Losses) -> Tensor:
        return torch.stack(losses).sum()


def balanced(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """With a balancer."""
    balance = make()
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            balance(losses).backward()
            optimizer.step()


class Ours(Way):
    """A balancer with a scheme."""

    loop = staticmethod(balanced)
    scheme: Callable[[int], Scheme]

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.module: Any = self.make(count)

    @classmethod
    def make(cls, count: int = TASKS) -> Any:
        """The package's object."""
        return Balancer(cls.scheme(count))

    def combine(self, losses: Losses) -> Tensor:
        total: Tensor = self.module(losses)
        return total


def of(build: Callable[[int], Scheme]) -> type[Ours]:
    """The way of a scheme."""
    return type("Ours", (Ours,), {"scheme": staticmethod(build)})


WAYS: dict[str, type[Way]] = {
    "sum(losses)": Plain,
    "Balancer(AdaLoss)": of(AdaLoss),
    "Balancer(UncertaintyWeighting)": of(Uncertainty),
    "Balancer(SoftmaxInverse)": of(SoftmaxInverse),
    "Balancer(LogLoss)": of(LogLoss),
    "Balancer(DynamicWeightAverage)": of(lambda n: DynamicWeightAverage(n, window=EPOCH)),
}
