"""What a part measures: rows of ratios, told as lines of JSON."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.timing import Step, Timed, measure, ratios

COUNTS = (4, 9, 25, 75, 1000)  # of losses


@dataclass(frozen=True)
class Row:
    """One figure: of which table, row and column, with its spread over the rounds."""

    table: str
    row: str
    column: str
    low: float  # lower quartile; equal to the others where there is nothing to repeat
    middle: float
    high: float
    unit: str = ""

    @classmethod
    def of(cls, table: str, row: str, column: str, values: list[float], unit: str = "") -> Row:
        """The median of what was measured, and its quartiles."""
        if len(values) == 1:
            return cls(table, row, column, *values * 3, unit=unit)
        return cls(table, row, column, *statistics.quantiles(values, n=4), unit=unit)

    def text(self) -> str:
        """For a cell of a table."""
        whole = self.middle >= 100 or self.low == self.high == round(self.middle)
        digits = 0 if whole else 2
        spread = f" ({self.low:.{digits}f}-{self.high:.{digits}f})" if self.low < self.high else ""
        return f"{self.middle:.{digits}f}{self.unit}{spread}"


@dataclass(frozen=True)
class Options:
    """How thorough a part is, and where it runs."""

    rounds: int
    device: str
    counts: tuple[int, ...]
    quick: bool = False  # leaves out what takes a minute, for a look at whether all runs

    @classmethod
    def read(cls) -> Options:
        """Of the command line of a part."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--rounds", type=int, default=30)
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
        parser.add_argument("--quick", action="store_true")
        given = parser.parse_args()
        return cls(given.rounds, given.device, tuple(given.counts), given.quick)


def compared(
    table: str,
    column: str,
    variants: dict[str, Step],
    base: str,
    rounds: int,
    inner: int,
    timed: Timed | None = None,
) -> Iterator[Row]:
    """A row for each variant but the base: the ratio to it, round by round; and its own time."""
    seconds = measure(variants, rounds, inner, timed)
    microseconds = [1e6 * taken / inner for taken in seconds[base]]
    yield Row.of(table, f"{base}, microseconds", column, microseconds)
    for name in variants:
        if name != base:
            yield Row.of(table, name, column, ratios(seconds[name], seconds[base]))


def tell(rows: Callable[[Options], Iterator[Row]]) -> None:
    """Prints the rows of a part as they come."""
    for row in rows(Options.read()):
        print(json.dumps(asdict(row)), flush=True)


def heard(line: str) -> Row | None:
    """The row of a line of a part's output, None where it is none."""
    if not line.startswith('{"table"'):
        return None
    found: dict[str, Any] = json.loads(line)
    return Row(**found)
