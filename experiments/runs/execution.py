"""Training runs, wherever that is, while telling how they go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loss_balance.experiments.runs import processes
from loss_balance.experiments.runs.local import train_here
from loss_balance.experiments.runs.places import Cluster, Place
from loss_balance.experiments.runs.watching import Report, Watch
from loss_balance.experiments.training.loop import Run

Results = dict[str, dict[str, Any]]  # result of `training.train` by the run's name


def execute(runs: Sequence[Run], folder: Path, place: Place, watches: Sequence[Watch]) -> Results:
    """Trains all runs, each in `folder / run.name`; equal ones end in equal numbers at any place.

    Raises:
        UserError: what a run raised; the others stop at their next step.
        KeyboardInterrupt: likewise; everything continues from the last checkpoints.
    """

    def tell(report: Report) -> None:
        for watch in watches:
            watch.tell(report)

    if processes.joined() > 1:
        from loss_balance.experiments.runs.joined import train_joined  # signals are its own

        return train_joined(runs, folder.absolute(), tell)
    if isinstance(place, Cluster):
        from loss_balance.experiments.runs.cluster import train_there  # Dask is not for everyone

        return train_there(runs, folder.absolute(), place.address, place.local, tell)
    return train_here(runs, folder, min(place.jobs, len(runs)), tell)
