"""The study's results: {problem: {method: record}}, packed in a small file a problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PACKED = Path(__file__).with_name("results")
Records = dict[str, dict[str, Any]]


def read(problem: str, folder: Path = PACKED) -> Records:
    """The records of a problem by method; none where it was not studied."""
    file = folder / f"{problem}.json"
    found: Records = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(problem: str, records: Records, folder: Path = PACKED) -> None:
    """Replaces the file, numbers in five digits and a line a method."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(name)}: {json.dumps(_short(one))}" for name, one in records.items())
    part = folder / f"{problem}.part"
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    part.replace(folder / f"{problem}.json")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, (list, tuple)) else value
