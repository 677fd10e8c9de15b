"""The figures of one part, on disk after every one, so that a part cut short loses nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "jax", "flax", "optax", "timm", "torchjd", "numpy")


class Results:
    """Rows of figures, written to `folder/<part>.json` whenever one is added.

    Args:
        part: "balance", "networks" or "paper".
        folder: where the file goes; made if missing.
        device: what the figures were measured on, as its maker calls it.
        configuration: the settings that hold for all rows.
    """

    def __init__(self, part: str, folder: Path, device: str, **configuration: Any) -> None:
        self.path = folder / f"{part}.json"
        self.content: dict[str, Any] = {
            "part": part,
            "device": device,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}",
            "versions": installed(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            "configuration": configuration,
            "complete": False,
            "rows": [],
            "skipped": [],
            "failed": [],
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def add(self, table: str, name: str, **figures: Any) -> None:
        """A row of `table`: numbers, or what `spread` gives; the unit ends the figure's name."""
        self.content["rows"].append({"table": table, "name": name, **figures})
        self._write()

    def skip(self, name: str, why: str) -> None:
        """What could not run here, by name."""
        self.content["skipped"].append({"name": name, "why": why})
        self._write()

    def fail(self, name: str, error: BaseException) -> None:
        """What broke; the part goes on with the next."""
        why = f"{type(error).__name__}: {error}"
        self.content["failed"].append({"name": name, "why": why[:500]})
        self._write()

    def update(self, **content: Any) -> None:
        """Replaces parts of the content, such as what a process of its own has gathered by now."""
        self.content.update(content)
        self._write()

    def finish(self) -> int:
        """Marks the part as complete; the exit status: 1 if anything failed."""
        self.content["complete"] = True
        self._write()
        return 1 if self.content["failed"] else 0

    def _write(self) -> None:
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.content, indent=1, default=str) + "\n")
        beside.replace(self.path)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of repeated measurements (of one: that value three times)."""
    if len(values) < 2:
        low = middle = high = float(values[0])
    else:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def installed() -> dict[str, str]:
    """Versions of what the figures depend on, if there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
