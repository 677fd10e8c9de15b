"""What a table is summed up by: changes against constant weights, ranks, what is told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.results import Records
from benchmarks.quality.study import LEAST

Values = NDArray[np.float64]


class Change(NamedTuple):
    """Against constant weights, in per cent, negative where better."""

    mean: float  # infinite where no seed came through
    spread: float  # standard deviation over the seeds
    whole: bool  # whether every seed came through

    def text(self) -> str:
        """As people read it."""
        if not math.isfinite(self.mean):
            return "diverged"
        return f"{self.mean:+.1f} ±{self.spread:.1f}"


def values(test: Mapping[str, list[float] | None]) -> Values:
    """Of the seeds that did not diverge, shape (seeds, metrics)."""
    return np.array([found for found in test.values() if found is not None])


def changes(records: Records, base: str) -> dict[str, Change]:
    """Each method's change against `base`: the geometric mean of the ratios of their metrics."""
    reference = np.log(np.maximum(values(records[base]["test"]), LEAST)).mean(0)
    found = {}
    for name, record in records.items():
        mine = values(record["test"])
        whole = len(mine) == len(record["test"])
        if not len(mine):
            found[name] = Change(math.inf, math.inf, whole)
            continue
        each = (np.log(np.maximum(mine, LEAST)) - reference).mean(1)
        ratio = math.exp(each.mean())
        spread = 100.0 * ratio * float(each.std(ddof=1)) if len(each) > 1 else math.inf
        found[name] = Change(100.0 * (ratio - 1.0), spread, whole)
    return found


def apart(one: Change, other: Change) -> bool:
    """Whether they differ by more than both spreads together."""
    return abs(one.mean - other.mean) > one.spread + other.spread


def ranks(records: Records) -> dict[str, float]:
    """Mean rank over the metrics, 1 the best, of the methods whose seeds all came through."""
    means = {
        name: values(record["test"]).mean(0)
        for name, record in records.items()
        if all(found is not None for found in record["test"].values())
    }
    every = np.array(list(means.values()))
    place = 1 + (every[None] < every[:, None]).sum(1)
    return {name: float(row.mean()) for name, row in zip(means, place, strict=True)}
