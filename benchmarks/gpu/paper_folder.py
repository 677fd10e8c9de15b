"""The folder of the paper's part: it comes back from a machine and goes to the next one, small."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.paper_training import Progress
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.experiments.training.run_folder import claim


def finished_runs(runs: Sequence[Run], folder: Path) -> dict[str, dict[str, Any]]:
    """Results by name.

    Raises:
        UserError: a folder holds another run of that name, say one of other images.
    """
    found = {}
    for run in runs:
        file = folder / run.name / "result.json"
        if file.is_file():
            claim(file.parent, run.config())
            found[run.name] = json.loads(file.read_text())
    return found


def epochs_done(run: Run, folder: Path) -> int:
    """How many epochs of the run are on disk."""
    folder = folder / run.name
    return len(read_metrics(folder)) if (folder / "metrics.jsonl").is_file() else 0


def paces(file: Path, runs: Sequence[Run], progress: Progress) -> Mapping[str, list[float]]:
    """[steps, seconds] of each run over all calls; `file` has those of the former ones."""
    known: dict[str, list[float]] = json.loads(file.read_text()) if file.is_file() else {}
    for run in runs:
        steps, seconds = known.get(run.name, (0, 0.0))
        more = progress.pace(run.name)
        known[run.name] = [steps + more.steps, seconds + more.seconds]
    file.write_text(json.dumps(known))
    return known


def lighten(runs: Sequence[Run], folder: Path, megabytes: float) -> list[str]:
    """Keeps results of what is finished and a checkpoint of what is not, while these fit.

    Returns the names of the runs whose checkpoints did not: they start anew.
    """
    left = megabytes * 2**20
    dropped = []
    for run in runs:
        own = folder / run.name
        finished = (own / "result.json").is_file()
        checkpoint = own / "checkpoint.npz"
        (own / "previous.npz").unlink(missing_ok=True)
        (own / "weights.npz").unlink(missing_ok=True)
        if not checkpoint.is_file():
            continue
        size = checkpoint.stat().st_size
        if finished or size > left:
            checkpoint.unlink()
            dropped += [] if finished else [run.name]
        else:
            left -= size
    return dropped
