"""How long an exit takes, by the number of requests it is computed for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loss_balance.anytime import calibrate
from loss_balance.checks import check_count, check_finite
from loss_balance.experiments.serving.requests import Network

UP, DOWN = 0.09, 0.01  # steps towards a longer and a shorter time: their ratio is the expectile's
REPEATS, WARM_UP = 15, 3
QUANTILE = 0.9


def batch_sizes(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`.

    >>> batch_sizes(6)
    (1, 2, 4, 6)
    """
    check_count("most", most)
    return (*(1 << k for k in range((most - 1).bit_length())), most)


class Times:
    """Expected seconds of each exit, for each of a few batch sizes; the next larger one counts.

    They follow what is observed as an expectile of 0.9 does (Newey and Powell, 1987), which lies
    above the mean as far as times are spread: a deadline is missed by what is above it. A larger
    batch never counts as faster.

    Args:
        seconds: for each batch size, from the smallest up, the seconds of each exit alone.

    Raises:
        ValueError: no size, not the same exits for each, or times that are not finite.
    """

    def __init__(self, seconds: Mapping[int, Sequence[float]]) -> None:
        self.sizes: tuple[int, ...] = tuple(sorted(seconds))
        if not self.sizes or len({len(times) for times in seconds.values()}) != 1:
            raise ValueError(f"seconds must have the same exits for each batch size, got {seconds}")
        for times in seconds.values():
            check_finite("seconds", times)
        self._seconds = [list(seconds[size]) for size in self.sizes]

    @property
    def exits(self) -> int:
        """How many exits there are."""
        return len(self._seconds[0])

    @property
    def most(self) -> int:
        """The largest batch."""
        return self.sizes[-1]

    def step(self, exit_: int, batch: int) -> float:
        """Expected seconds of an exit, from the one before it, for `batch` requests."""
        return max(row[exit_] for row in self._seconds[: bisect_left(self.sizes, batch) + 1])

    def observe(self, exit_: int, batch: int, seconds: float) -> None:
        """Moves towards what an exit took."""
        row = self._seconds[bisect_left(self.sizes, batch)]
        difference = seconds - row[exit_]
        # A stall of the machine is no more than a slow exit: tenfold at most.
        difference = min(difference, 9 * row[exit_])
        row[exit_] += (UP if difference > 0 else DOWN) * difference


def noise(shape: Sequence[int], batch: int) -> NDArray[np.float32]:
    """Made-up input (batch, H, W, C)."""
    return np.random.default_rng(0).standard_normal((batch, *shape), np.float32)


def measured(network: Network, shape: Sequence[int], most: int) -> Times:
    """Times of the network on noise of `shape` (H, W, C), for batches of up to `most`.

    Raises:
        ValueError: as `anytime.calibrate`.
    """
    reached = {
        size: calibrate(network, noise(shape, size), REPEATS, quantile=QUANTILE, warm_up=WARM_UP)
        for size in batch_sizes(most)
    }
    return Times({size: np.diff([0.0, *times]).tolist() for size, times in reached.items()})
