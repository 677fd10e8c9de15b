"""The study's results: a JSON file a run, all of them packed in one beside this module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PACKED = Path(__file__).with_name("results.json")  # {setting: {run: result}}


def known(setting: str, name: str, out: Path) -> dict[str, Any] | None:
    """The result of a finished run, from `out` or else from what is packed."""
    file = out / setting / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    packed = json.loads(PACKED.read_text()) if PACKED.exists() else {}
    found: dict[str, Any] | None = packed.get(setting, {}).get(name)
    return found


def write(setting: str, name: str, out: Path, result: dict[str, Any]) -> None:
    """Keeps a result in `out`."""
    file = out / setting / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result) + "\n")
    part.replace(file)


def pack(out: Path) -> int:
    """Adds all that is in `out` to what is packed, rounded to six digits; how many there are."""
    packed = json.loads(PACKED.read_text()) if PACKED.exists() else {}
    for file in sorted(out.glob("*/*.json")):
        result = json.loads(file.read_text())
        rounded = {key: [round(x, 6) for x in values] for key, values in result.items()}
        packed.setdefault(file.parent.name, {})[file.stem] = rounded
    ordered = {setting: dict(sorted(runs.items())) for setting, runs in sorted(packed.items())}
    lines = (
        f'"{setting}": {{\n'
        + ",\n".join(f" {json.dumps(name)}: {json.dumps(run)}" for name, run in runs.items())
        + "\n}"
        for setting, runs in ordered.items()
    )
    PACKED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return sum(map(len, ordered.values()))
