"""What a probe says of a way: a cell of a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One cell.

    Args:
        table: its title.
        title: of the way: the row.
        column: of the table.
        text: the cell.
        value: the number behind the text, if there is one.
    """

    table: str
    title: str
    column: str
    text: str
    value: float | None = None

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def heard(line: str) -> Finding | None:
    """The finding of a line of a probe's output, None where it is none."""
    if not line.startswith('{"table"'):
        return None
    found: dict[str, Any] = json.loads(line)
    return Finding(**found)


def percent(share: float) -> str:
    """Two digits, or all that are before the point."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def failed(error: BaseException) -> str:
    """What came in place of a result: the type, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    said = lines[0].strip() if lines else ""
    short = said if len(said) <= 90 else said[:87] + "..."
    return f"{type(error).__name__}: {short}" if short else type(error).__name__
