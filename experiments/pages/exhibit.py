"""What a command found, computed once: shown on the terminal, written to a page, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table

from loss_balance.experiments.pages.style import Drawing
from loss_balance.experiments.terminal import console


class TextTable(NamedTuple):
    """A table whose cells are text, the same wherever it is shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: str | None = None  # the row that begins with it stands out


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Tables, what they say in words, and pictures."""

    title: str
    tables: tuple[TextTable, ...]
    notes: tuple[str, ...] = ()  # what a reader of the tables must know
    findings: tuple[str, ...]  # from the numbers alone
    picture: bytes  # a PNG
    drawings: tuple[Drawing, ...] = ()  # the same for a page
    numbers: bytes = b""  # all of them, as CSV


def show(exhibit: Exhibit) -> None:
    """Prints the tables, the notes and the findings."""
    for each in exhibit.tables:
        table = Table(title=each.title, title_justify="left")
        for number, column in enumerate(each.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in each.rows:
            table.add_row(*row, style="bold" if row[0] == each.strong else None)
        console.print(table)
    for note in exhibit.notes:
        console.say(note)
    for line in exhibit.findings:
        console.say(f"• {line}")


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Lines ended as RFC 4180 has it, UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
