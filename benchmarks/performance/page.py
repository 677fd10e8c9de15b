"""The page: a table for each of the parts' tables, and what it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.performance import goals
from benchmarks.performance.rows import Row

VERSIONS = ("torch", "tensorflow-cpu", "jax", "keras", "numpy", "torchjd")
REMARKS = Path(__file__).with_name("remarks.md")


def tables(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each table, in the order in which they came."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return found


def table(rows: list[Row]) -> str:
    """In Markdown: rows down, columns across."""
    names, columns = (
        list(dict.fromkeys(values))
        for values in zip(*((r.row, r.column) for r in rows), strict=True)
    )
    cells = {(row.row, row.column): row.text() for row in rows}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(cells.get((name, c), "") for c in columns) + " |")
    return "\n".join(lines)


def machine(names: Iterable[str] = VERSIONS) -> str:
    """What it was measured on, in one sentence: processor, and versions of packages."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"without {name}")
    found.insert(0, f"Python {platform.python_version()}")
    return f"{os.cpu_count()} cores of {processor_name()}, {', '.join(found)}."


def processor_name() -> str:
    """As Linux calls it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def page(rows: Iterable[Row], command: str) -> str:
    """The whole of docs/results/performance.md: the remarks, `{table NAME}` and `{machine}` put in.

    Tables that the remarks do not name follow at the end.
    """
    rows = list(rows)
    text = (
        REMARKS.read_text()
        .replace("{goals}", goals.table(rows))
        .replace("{machine}", machine())
        .replace("{command}", command)
    )
    for name, of_it in tables(rows).items():
        place = f"{{table {name}}}"
        if place not in text:
            text += f"\n## {name}\n\n{place}\n"
        text = text.replace(place, table(of_it))
    return text
