"""What a way to train on many losses is, whoever wrote it: the one face that all probes use.

way = catalogue.find("torchjd UW")(count, shared)
optimizer = SGD([*net.parameters(), *way.parameters()], lr=0.1)
for x, y in batches:
    output = net(x)
    losses = ...                              # a list of `count` scalars
    optimizer.zero_grad()
    way.backward(losses, output)              # in place of sum(losses).backward()
    optimizer.step()
    way.after_step(lambda: ...)               # the losses of the same batch, anew
way.after_epoch()                             # after each pass over the data
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

Losses = list[Tensor]


class Way:
    """One way to make the gradients of many losses; by itself no balance at all.

    A subclass overrides `combine`, or `backward` where a package makes the gradients itself.

    Args:
        count: how many losses.
        shared: parameters that all losses depend on, for those who look at gradients there.
    """

    owns_backward: ClassVar[bool] = False  # the package calls backward() itself
    # A whole training loop as its user writes it, called with what makes the package's object:
    # how many lines that takes is counted, and that it trains as this class does is tried.
    loop: ClassVar[Callable[..., None]]
    make: ClassVar[Callable[..., Any]]

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        self.count = count
        self.shared = list(shared)
        self.module: nn.Module | None = None  # where the package's is one

    def combine(self, losses: Losses) -> Tensor:
        """The scalar to differentiate, of `count` scalars."""
        return torch.stack(losses).sum()

    def backward(self, losses: Losses, output: Tensor) -> None:
        """Adds the gradients to all parameters.

        Args:
            losses: `count` scalars; None stands for one that is absent.
            output: what the losses were computed of, for those who differentiate up to it.
        """
        del output
        self.combine(losses).backward()

    def parameters(self) -> list[nn.Parameter]:
        """Those that the user's optimiser has to learn beside the network's."""
        return []

    def after_step(self, again: Callable[[], Losses]) -> None:
        """What is to be called after each step of the optimiser; `again` computes the losses."""

    def after_epoch(self) -> None:
        """What is to be called after each epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What its user would save beside the network and the optimiser: what the package offers."""
        return {} if self.module is None else self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` of an object like it gave."""
        if self.module is not None:
            self.module.load_state_dict(state)
