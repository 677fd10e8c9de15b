"""How far predictions overshoot deadlines: a network that watches its exits, and many calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.anytime import predict, ready
from loss_balance.anytime.driving import Clock

Answers = Callable[[Any], Iterator[Any]]


class Watched:
    """A network that notes how long its latest exit took, until its answer was ready."""

    def __init__(self, answers: Answers, clock: Clock) -> None:
        self.answers, self.clock = answers, clock
        self.last = 0.0  # seconds that the latest exit took

    def anytime(self, images: Any) -> Iterator[Any]:
        """The network's answers, watched."""
        answers = self.answers(images)
        while True:
            begun = self.clock()
            logits = next(answers, None)
            if logits is None:
                return
            ready(logits)
            self.last = self.clock() - begun
            yield logits


def random_deadlines(whole: float, count: int) -> NDArray[np.float64]:
    """Drawn evenly from 0 to 1.2 times the seconds of the whole network; the same each time."""
    return np.random.default_rng(0).uniform(0, 1.2 * whole, count)


def overshoots(
    net: Watched, images: Any, deadlines: NDArray[np.float64], times: Sequence[float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """(seconds returned after the deadline, seconds of the exit that ran last, late answers)."""
    seconds, lasts, late = [], [], 0
    for deadline in deadlines.tolist():
        begun = net.clock()
        found = predict(net.anytime(images), deadline, clock=net.clock, expected_times=times)
        over = net.clock() - begun - deadline
        seconds.append(over)
        lasts.append(net.last)
        late += found.late
    return np.array(seconds), np.array(lasts), late
