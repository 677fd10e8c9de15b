"""Four tasks on one small network: what all ways train on, and the plain loop they are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)
from torch.optim import SGD

TASKS = 4
RATE = 0.01
EPOCH = 10  # batches
SCALES = (10.0, 1.0, 0.1)  # of the regressions' losses; the fourth task is a classification
CLASSES = 5

Batch = tuple[Tensor, Tensor]
Losses = list[Tensor]
Epochs = list[list[Batch]]
Loop = Callable[[nn.Module, Epochs, Callable[[], object]], object]


class Net(nn.Module):
    """A trunk, and one layer with the outputs of all tasks side by side."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.Linear(64, len(SCALES) + CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.heads(self.trunk(x))
        return outputs


def criteria(output: Tensor, y: Tensor) -> Losses:
    """The loss of each task: scalars whose scales differ, as those of real tasks do."""
    each: Losses = [s * F.mse_loss(output[:, k], y[:, k]) for k, s in enumerate(SCALES)]
    return [*each, F.cross_entropy(output[:, len(SCALES) :], y[:, -1].long())]


def batches(count: int, seed: int = 0, size: int = 32) -> list[Batch]:
    """Made anew from a seed: inputs, and targets that depend on them."""
    drawn = torch.Generator().manual_seed(seed)
    rule = torch.randn(20, len(SCALES) + 1, generator=torch.Generator().manual_seed(99))
    found = []
    for _ in range(count):
        x = torch.randn(size, 20, generator=drawn)
        y = x @ rule / 4 + 0.3 * torch.randn(size, len(SCALES) + 1, generator=drawn)
        y[:, -1] = y[:, -1].mul(2).round().clamp(-2, 2) + 2
        found.append((x, y))
    return found


def in_epochs(every: Iterable[Batch]) -> Epochs:
    """Of `EPOCH` batches each."""
    held = list(every)
    return [held[k : k + EPOCH] for k in range(0, len(held), EPOCH)]


def plain(net: nn.Module, epochs: Epochs, make: Callable[[], object]) -> None:
    """The loop before any balance, with which those that the packages ask for are compared."""
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
