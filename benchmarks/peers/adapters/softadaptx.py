"""SoftAdaptX (`pip install softadaptx`), which weighs lists of numbers, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from softadaptx.algorithms import SoftAdapt
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria

EVERY = 5  # steps, as its README has it


def by_hand(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """The user keeps the losses of the last steps, and the weights."""
    adapt = make()
    past, weights = [], np.ones(TASKS)
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            past.append([loss.item() for loss in losses])
            if len(past) == EVERY:
                weights = adapt.get_component_weights(*np.array(past).T, verbose=False)
                past = []
            optimizer.zero_grad()
            sum(float(w) * loss for w, loss in zip(weights, losses, strict=True)).backward()
            optimizer.step()


class Original(Way):
    """Its first algorithm; what it is given is kept by its user, so it has nothing to save."""

    loop = staticmethod(by_hand)

    def __init__(self, count: int, shared: Any) -> None:
        super().__init__(count, shared)
        self.adapt = self.make()
        self.past: list[list[float]] = []
        self.weights = np.ones(count)

    @staticmethod
    def make() -> Any:
        """The package's object."""
        return SoftAdapt(beta=0.1)

    def combine(self, losses: Losses) -> Tensor:
        self.past.append([loss.item() for loss in losses])
        if len(self.past) == EVERY:
            points = np.array(self.past).T
            self.weights = self.adapt.get_component_weights(*points, verbose=False)
            self.past = []
        total: Any = sum(float(w) * x for w, x in zip(self.weights, losses, strict=True))
        return total  # type: ignore[no-any-return]  # never the 0 of no losses


WAYS = {"softadaptx SoftAdapt": Original}
