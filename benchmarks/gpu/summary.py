"""One page of what the parts of `benchmarks/gpu.sh` found.

python -m benchmarks.gpu.summary FOLDER > summary.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PARTS = ("checks", "balance", "networks", "paper")
SHOWN = 40  # names of what was skipped or failed, a part


def page(folder: Path) -> str:
    """Markdown: statuses, machine, and a table per part and kind of figure."""
    statuses = dict(_statuses(folder))
    lines = ["# What a GPU showed", "", "| part | ended with | took |", "|---|---|---|"]
    lines += [
        f"| {part} | {status} | {seconds} s |" for part, (status, seconds) in statuses.items()
    ]
    for part in PARTS:
        file = folder / f"{part}.json"
        if file.is_file():
            lines += ["", *_part(json.loads(file.read_text()))]
        elif part in statuses:
            lines += ["", f"## {part}", "", "It left no figures: see its log."]
    return "\n".join(lines) + "\n"


def _statuses(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """What `gpu.sh` noted: "<part> <exit status> <seconds>" a line."""
    file = folder / "statuses.txt"
    for line in file.read_text().splitlines() if file.is_file() else []:
        part, status, seconds = line.split()
        meaning = {"0": "all well", "1": "failures", "124": "time over", "137": "killed"}
        yield part, (meaning.get(status, f"status {status}"), seconds)


def _part(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {content['part']}"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    yield f"{content['device']}; {content['machine']}; {versions}; {content['started']} UTC."
    if not content["complete"]:
        yield "It was cut short: what is below is what was measured until then."
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for row in content["rows"]:
        tables.setdefault(row["table"], []).append(row)
    for name, rows in tables.items():
        yield ""
        yield f"**{name}**"
        yield ""
        yield from _table(rows)
    for kind in ("failed", "skipped"):
        found = content[kind]
        if found:
            yield ""
            yield f"{len(found)} {kind}:"
            yield ""
            yield from (f"- {one['name']}: {one['why'][:160]}" for one in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"- and {len(found) - SHOWN} more"


def _table(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "table"))
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_cell(row.get(column)) for column in columns) + " |"


def _cell(value: Any) -> str:
    """A number to four digits; a spread as median (low-high)."""
    if isinstance(value, Mapping) and {"median", "low", "high"} <= set(value):
        return f"{value['median']:.4g} ({value['low']:.4g}-{value['high']:.4g})"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
