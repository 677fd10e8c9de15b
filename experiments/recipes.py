"""How a network is trained: the paper's recipe (Section 5, Appendix C), scaled to the data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loss_balance.base import check_count, check_range


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the learning rate falls to a tenth after 1/2 and after 3/4 of the epochs.

    Weight decay is on convolution and linear kernels alone, as in the authors' code.
    """

    epochs: int
    learning_rate: float = 0.1
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_range("learning_rate", self.learning_rate, 0.0, open_low=True)
        check_range("momentum", self.momentum, 0.0, 1.0, open_high=True)
        check_range("weight_decay", self.weight_decay, 0.0)

    def rate(self, epoch: int) -> float:
        """The learning rate in `epoch`, counted from 0."""
        return self.learning_rate * 0.1 ** (
            (2 * epoch >= self.epochs) + (4 * epoch >= 3 * self.epochs)
        )

    def batches(self, count: int) -> int:
        """Steps per epoch over `count` images; the last incomplete batch is dropped."""
        return max(1, count // self.batch_size)


RECIPES = {
    "digit-pairs": Recipe(epochs=25, learning_rate=0.2),
    "digits": Recipe(epochs=10),
    "npz": Recipe(epochs=30),
}


def epoch_order(seed: int, epoch: int, count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Which images each step sees, (batches, batch_size); a function of its arguments alone.

    So every scheme sees the same images, in every framework, and a resumed run goes on as if never
    interrupted.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    batches = recipe.batches(count)
    size = min(recipe.batch_size, count)
    return order[: batches * size].reshape(batches, size)
