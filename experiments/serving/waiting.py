"""The requests that wait, the nearest deadline first, and when the first of them must be begun."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Sequence
from itertools import count

from loss_balance.experiments.serving.requests import Request

First = Callable[[int], float]  # expected seconds until a batch of that size has a first answer


def latest_starts(deadlines: Sequence[float], first: First, sizes: Sequence[int]) -> list[float]:
    """When requests must be begun at the latest, so that each has a first answer in time.

    They are cut into batches in their order; the batch that begins with request i and has b members
    must be done by the deadline of i, its nearest one, and before the rest must be begun:

        latest[i] = max over b of min(deadlines[i], latest[i + b]) - first(b)

    An earlier start, or a request less, never makes it impossible: the same cut still does.

    >>> latest_starts([5.0, 9.0, 9.0], lambda batch: 1.0 + batch, sizes=(1, 2))
    [3.0, 6.0, 7.0, inf]

    Args:
        deadlines: in ascending order.
        first: seconds, by the batch's size; not less for a larger one.
        sizes: of batches for which `first` is known, ascending; those between take as long as the
            next larger one.

    Returns:
        One for each request and those after it, and infinity for the end.
    """
    seconds = [first(size) for size in sizes]
    waiting = len(deadlines)
    latest = [math.inf] * (waiting + 1)
    for i in range(waiting - 1, -1, -1):
        latest[i] = max(
            min(deadlines[i], latest[min(i + size, waiting)]) - needed
            for size, needed in zip(sizes, seconds, strict=True)
        )
    return latest


def batch_size(done: Sequence[float], deadlines: Sequence[float], latest: Sequence[float]) -> int:
    """How many of those who wait are begun: as many as leave all of them in time.

    Where that is no longer possible, as many as leave the first one in time, or it alone.

    Args:
        done: when a batch of 1, 2, ... has its first answer, up to as many as may be begun.
        deadlines: of those who wait and have one, ascending.
        latest: their `latest_starts`.
    """
    nearest = deadlines[0] if deadlines else math.inf
    sizes = [n for n in range(len(done), 0, -1) if done[n - 1] <= nearest] or [1]
    for size in sizes:
        if size >= len(deadlines) or done[size - 1] <= latest[size]:
            return size
    return sizes[0]


class Waiting:
    """Requests by deadline; those without one come last, and first come, first served."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Request]] = []
        self._arrivals = count()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: Request) -> None:
        """Takes its place."""
        insort(self._entries, (request.deadline, next(self._arrivals), request))

    def take(self, number: int) -> list[Request]:
        """The first ones, which wait no longer."""
        taken, self._entries = self._entries[:number], self._entries[number:]
        return [request for *_, request in taken]

    def remove(self, unwanted: Callable[[Request], bool]) -> list[Request]:
        """Those of which that is true, which wait no longer."""
        removed = [entry for entry in self._entries if unwanted(entry[-1])]
        if removed:
            self._entries = [entry for entry in self._entries if not unwanted(entry[-1])]
        return [request for *_, request in removed]

    def deadlines(self, more: float = math.inf) -> list[float]:
        """All that are finite, ascending, as if one more request waited."""
        found = [deadline for deadline, *_ in self._entries if deadline < math.inf]
        if more < math.inf:
            insort(found, more)
        return found
