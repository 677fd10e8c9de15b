"""What both frameworks measure of combining losses, and its rows."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.gpu.results import Results, spread
from benchmarks.timing import BASE, Step, Timed, measure, ratios

COUNTS = (4, 9, 25, 75)  # of losses
EXITS = 9  # of the small network


class Repeats(NamedTuple):
    """How often a variant is measured."""

    rounds: int  # interleaved with the others'
    inner: int  # calls in a round


def add_rows(
    results: Results,
    table: str,
    variants: dict[str, Step],
    repeats: Repeats,
    timed: Timed,
    *,
    steps: int = 1,
    **setting: int | str,
) -> None:
    """A row per variant: ratio to BASE round by round, and microseconds per step.

    Args:
        results: where to.
        table: of the rows.
        variants: by name, BASE among them.
        repeats: how often.
        timed: how a round is measured.
        steps: that one call of a variant does.
        setting: what the rows have in common.
    """
    seconds = measure(variants, *repeats, timed)
    for name, taken in seconds.items():
        ratio = spread(ratios(taken, seconds[BASE]))
        us = spread([1e6 * value / repeats.inner / steps for value in taken])
        results.add(table, name, **setting, ratio=ratio, us=us)
