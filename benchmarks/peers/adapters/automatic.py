"""AutomaticWeightedLoss is on GitHub alone, so its formula is written anew: hence "-style".

Liebel and Körner 2018, arXiv 1805.06334, Eq. 5: each loss is divided by twice the square of a
learned number c, and log(1 + c^2) is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria


class Automatic(nn.Module):
    """A loop over the losses, as it is commonly written."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.ones(count))

    def forward(self, *losses: Tensor) -> Tensor:
        total: Any = 0
        for k, loss in enumerate(losses):
            total = total + loss / (2 * self.c[k] ** 2) + torch.log(1 + self.c[k] ** 2)
        return total  # type: ignore[no-any-return]  # Any while it is 0


def learned(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """A module whose parameters the optimiser learns."""
    weigh = make()
    optimizer = SGD([*net.parameters(), *weigh.parameters()], lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            weigh(*losses).backward()
            optimizer.step()


class AutomaticStyle(Way):
    """The module, as a way."""

    loop = staticmethod(learned)

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.module: Any = self.make(count)

    @staticmethod
    def make(count: int = TASKS) -> Any:
        """The module."""
        return Automatic(count)

    def combine(self, losses: Losses) -> Tensor:
        total: Tensor = self.module(*losses)
        return total

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())


WAYS = {"AutomaticWeightedLoss-style": AutomaticStyle}
