"""What a worker does with a run, wherever the worker is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loss_balance.experiments.runs.ranks import train_by_ranks
from loss_balance.experiments.runs.watching import Tell
from loss_balance.experiments.runs.working import train_as
from loss_balance.experiments.training.crew import ALONE
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.run_folder import alone


def train_run(run: Run, folder: Path, tell: Tell, stopped: Callable[[], bool]) -> dict[str, Any]:
    """`working.train_as` by as many processes as it takes, once no other worker is in its folder.

    Raises:
        Interruption: `stopped` came true.
        UserError: as `working.train_as`.
    """
    with alone(folder, stopped):
        if run.engine.framework == "torch" and run.engine.devices > 1:
            return train_by_ranks(run, folder, tell, stopped)
        return train_as(ALONE, run, folder, tell, stopped)
