"""Requests that a network computes together, an exit at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.serving.requests import Answer, Network, Request

Positions = NDArray[np.intp]


class Batch:
    """Members leave between two exits; `advance` goes on with those that are left.

    Args:
        network: computes.
        members: at least one.
    """

    def __init__(self, network: Network, members: Sequence[Request]) -> None:
        self.members: list[Request] = list(members)
        self.exit: int = 0  # the next one to be computed
        self._network = network
        self._answers: Generator[NDArray[Any], Any, None] | None = None
        self._rows = self.members  # whom the rows of the last logits belonged to

    def leave(self, leaves: Callable[[Request], bool]) -> list[Request]:
        """Those of which that is true; they are no members any more."""
        left = [request for request in self.members if leaves(request)]
        self.members = [request for request in self.members if not leaves(request)]
        return left

    def advance(self) -> NDArray[np.float64] | None:
        """The next exit's logits (members, classes), None where the network has no more.

        Raises:
            ValueError: the logits are none of the members'.
            Exception: what the network raises.
        """
        if self._answers is None:
            images = np.stack([request.image for request in self.members])
            self._answers = self._network.anytime(images)
        kept: Positions | None = None
        if len(self.members) < len(self._rows):
            staying = set(map(id, self.members))
            kept = np.flatnonzero([id(request) in staying for request in self._rows])
        try:
            logits = np.asarray(self._answers.send(kept), np.float64)
        except StopIteration:
            return None
        if logits.ndim != 2 or len(logits) != len(self.members):
            raise ValueError(
                "a network must yield logits (batch, classes), expected "
                f"{len(self.members)} rows, got the shape {logits.shape}"
            )
        self._rows = self.members
        return logits

    def spread(
        self, logits: NDArray[np.float64], at: float, errors: tuple[float, ...] | None
    ) -> list[tuple[Request, Answer]]:
        """Gives each member its row, and says who got what."""
        given = []
        for request, row in zip(self.members, logits, strict=True):
            answer = Answer(self.exit, row, at, len(self.members))
            request.offer(answer, errors)
            given.append((request, answer))
        self.exit += 1
        return given

    def close(self) -> None:
        """Nothing more is computed."""
        if self._answers is not None:
            self._answers.close()


def in_time(members: Sequence[Request], at: float, step: Callable[[int], float]) -> list[Request]:
    """Those who go on: as many as the next exit should be ready for by the deadline of each.

    Of a smaller batch the exit is ready sooner, so those of the farthest deadlines go on.

    Args:
        members: of the batch.
        at: the present moment.
        step: expected seconds of the next exit, by the size of the batch.
    """
    farthest_first = sorted(members, key=lambda request: -request.deadline)
    for number in range(len(farthest_first), 0, -1):
        nearest = farthest_first[number - 1].deadline
        if nearest == math.inf or at + step(number) <= nearest:
            return farthest_first[:number]
    return []
