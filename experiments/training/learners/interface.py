"""What every framework's learner can do; `training` has the loop over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Arrays, Images, Labels
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.crew import Crew


class Learner(Protocol):
    """A network, its optimiser and its balancer, in some framework; made of a run and its data.

    One of several processes has its part of every batch; all call the same methods.
    """

    crew: Crew

    def train_epoch(
        self, batches: Iterable[feed.Batch], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        """Mean loss of each exit over the epoch's batches, of all processes, shape (num_exits,).

        `on_step(step, loss of the last exit)` is called every few steps, for reading the loss waits
        for the device.
        """

    def evaluate(
        self, batches: Iterable[tuple[Images, Labels]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean cross-entropy, error rate) of each exit over all images, both (num_exits,)."""

    def loss_weights(self) -> list[float]:
        """The current weight of each exit's loss."""

    def weights(self) -> Arrays:
        """The network under the spec's names, for `weights.npz`."""

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `weights`, in any framework; ValueError if it does not fit."""

    def state(self) -> Arrays:
        """All that training depends on, exactly."""

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `state`; ValueError or KeyError if it does not fit."""


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays as a part of a `state`."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def under(prefix: str, state: Mapping[str, NDArray[Any]]) -> Arrays:
    """The inverse of `prefixed`."""
    start = f"{prefix}/"
    return {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}
