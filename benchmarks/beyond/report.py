"""The study's results as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.beyond.runs import Job
from loss_balance.experiments.studies.comparison import AT, FRACTIONS
from loss_balance.reference_models.description.spec import AnytimeSpec

Values = NDArray[np.float64]  # (seeds, 4), at the fractions of the cost
METRICS = {"train_loss": (1.0, 3), "test_error": (100.0, 1)}  # (factor, digits)


def table(spec: AnytimeSpec, results: Mapping[Job, Mapping[str, Any]]) -> str:
    """Mean and standard deviation over the seeds; the least mean of each column is bold."""
    names = list(dict.fromkeys(job.variant for job in results))
    every = {
        metric: {name: factor * _values(spec, name, results, metric) for name in names}
        for metric, (factor, _) in METRICS.items()
    }
    titles = (f"training loss at {at}" for at in AT), (f"error, % at {at}" for at in AT)
    rows = [["", "seeds", *(text for group in titles for text in group)], ["---"] * 10]
    for name in names:
        cells = [
            cell
            for metric, (_, digits) in METRICS.items()
            for cell in _cells(every[metric], name, digits)
        ]
        rows.append([name, str(len(every["test_error"][name])), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(every: Mapping[str, Values], name: str, digits: int) -> list[str]:
    rivals = np.array([values.mean(axis=0) for other, values in every.items() if other != "opt"])
    values, cells = every[name], []
    for k, mean in enumerate(values.mean(axis=0)):
        text = f"{mean:.{digits}f}"
        if len(values) > 1:
            text += f" ±{values[:, k].std(ddof=1):.{digits}f}"
        best = name != "opt" and mean == rivals[:, k].min()
        cells.append(f"**{text}**" if best else text)
    return cells


def _values(
    spec: AnytimeSpec, name: str, results: Mapping[Job, Mapping[str, Any]], metric: str
) -> Values:
    """Of each seed, at the exit of each fraction; of OPT from the network cut there."""
    exits: Sequence[int] = [spec.latest_exit(fraction) for fraction in FRACTIONS]
    seeds = sorted({job.seed for job in results if job.variant == name})
    rows = []
    for seed in seeds:
        mine = {
            job.cut: found
            for job, found in results.items()
            if (job.variant, job.seed) == (name, seed)
        }
        rows.append([mine[None][metric][k] if None in mine else mine[k][metric][0] for k in exits])
    return np.array(rows)
