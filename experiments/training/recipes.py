"""How a network is trained: the paper's recipe (Section 5.1), and the same scaled to small data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loss_balance.checks import check_count, check_range


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the learning rate falls to a tenth at each milestone.

    Weight decay is on convolution and linear kernels alone, as in the authors' code.

    Args:
        epochs: the length of training; the milestones move with it.
        learning_rate: at the beginning.
        batch_size: the paper gives none; the authors' launch scripts have 64 for CIFAR and SVHN.
        momentum: of SGD, not Nesterov's.
        weight_decay: the paper's 1e-4; the authors' code has 2e-4 for CIFAR and SVHN.
        milestones: when the learning rate falls, as shares of `epochs`, ascending. On CIFAR and
            SVHN the authors' code has three falls at other epochs, the last one to a fifth.
    """

    epochs: int
    learning_rate: float = 0.1
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (1 / 2, 3 / 4)

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_range("learning_rate", self.learning_rate, 0.0, open_low=True)
        check_range("momentum", self.momentum, 0.0, 1.0, open_high=True)
        check_range("weight_decay", self.weight_decay, 0.0)
        for milestone in self.milestones:
            check_range("milestones", milestone, 0.0, 1.0, open_low=True, open_high=True)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, got {self.milestones}")

    def rate(self, epoch: int) -> float:
        """The learning rate in `epoch`, counted from 0."""
        done = (epoch + 1e-9) / self.epochs  # a third of 90 is 30, whatever the last bit of 1 / 3
        return self.learning_rate * 0.1 ** sum(done >= share for share in self.milestones)

    def batches(self, count: int) -> int:
        """Steps per epoch over `count` images; the last incomplete batch is dropped."""
        return max(1, count // self.batch_size)

    def size_of_batch(self, count: int) -> int:
        """Images of each step over `count` of them."""
        return min(self.batch_size, count)


RECIPES = {
    "digit-pairs": Recipe(epochs=25, learning_rate=0.2),
    "digits": Recipe(epochs=10),
    "cifar10": Recipe(epochs=300),
    "cifar100": Recipe(epochs=300),
    "svhn": Recipe(epochs=60),
    # At epochs 30 and 60 of 90. The authors' code scales the rate by batch_size / 256.
    "imagefolder": Recipe(epochs=90, batch_size=256, milestones=(1 / 3, 2 / 3)),
    "npz": Recipe(epochs=30),
}


def epoch_order(seed: int, epoch: int, count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Which images each step sees, (batches, batch_size); a function of its arguments alone.

    So every scheme sees the same images, in every framework, and a resumed run goes on as if never
    interrupted.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    batches = recipe.batches(count)
    size = recipe.size_of_batch(count)
    return order[: batches * size].reshape(batches, size)
