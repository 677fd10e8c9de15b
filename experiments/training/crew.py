"""The processes that train one run together, and what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Crew(Protocol):
    """One process of `size` that train the same run; each calls the same methods in the same order.

    Attributes:
        rank: of this process, from 0 on.
        size: how many there are.
        part: the rows of every batch that this process is given: r, r + N, r + 2 N, ... where it
            has an array of its own for them, all where the processes share one.
    """

    rank: int
    size: int
    part: slice

    def wait(self) -> None:
        """Until all are here."""

    def all(self, agreed: bool) -> bool:
        """Whether all say so."""

    def check_equal(self, what: str, values: Sequence[float]) -> None:
        """RuntimeError, which says of what, unless all have the same."""

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over all of them."""


class Alone:
    """A crew of one."""

    rank = 0
    size = 1
    part: slice = slice(None)

    def wait(self) -> None: ...

    def all(self, agreed: bool) -> bool:
        return agreed

    def check_equal(self, what: str, values: Sequence[float]) -> None: ...

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values


ALONE: Crew = Alone()


def refuse_unequal(what: str, every: Sequence[Sequence[float]]) -> None:
    """RuntimeError, which says of what, unless all ranks have the same values."""
    for rank, theirs in enumerate(every):
        if theirs != every[0]:
            raise RuntimeError(
                f"all ranks must have the same {what}, got "
                f"{every[0]} on rank 0 and {theirs} on rank {rank}"
            )
