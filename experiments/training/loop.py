"""One training run, the same loop for every framework: epochs, checkpoints, resume, evaluation.

`run_folder` says what the run leaves on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.backends.interface import scheme_config
from loss_balance.experiments.data.preparation import preparation_for
from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learner import Learner
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.run_folder import (
    claim,
    restore,
    save_epoch,
    write_arrays,
    write_json,
)
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.reference_models.description.config import to_config
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.schemes.base import Scheme

Progress = Callable[[int, int, float], bool]  # (epoch, step, loss of the last exit) -> go on


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained: equal runs end in equal numbers."""

    name: str
    spec: AnytimeSpec
    scheme: Scheme
    recipe: Recipe
    seed: int
    source: Source
    fingerprint: str  # of the data
    engine: Engine = field(default_factory=Engine)
    coupling: Coupling = field(default_factory=Coupling)

    def steps(self, images: int) -> int:
        """Of the whole training, over so many images."""
        return self.recipe.epochs * self.recipe.batches(images)

    def config(self) -> dict[str, Any]:
        """The run's description as JSON holds it."""
        return {
            "name": self.name,
            "network": self.spec.name,
            "spec": to_config(self.spec),
            "scheme": scheme_config(self.scheme),
            "coupling": asdict(self.coupling),
            "recipe": asdict(self.recipe) | {"milestones": list(self.recipe.milestones)},
            "seed": self.seed,
            "data": self.source.config(),
            "fingerprint": self.fingerprint,
            "engine": asdict(self.engine),
        }


def train(
    run: Run,
    learner: Learner,
    data: Dataset,
    folder: Path,
    progress: Progress,
    workers: int = 0,
) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint if there is one, and returns the result.

    The result: `train_loss`, `test_loss` and `test_error` per exit, of the finished network in
    evaluation mode over the whole split. `workers` processes read streamed images.

    Raises:
        Interruption: `progress` returned False.
        UserError: the loss stopped being finite, the disk is full, or the folder holds another run
            or no checkpoint that can be read. What was reached before stays.
    """
    result_file = folder / "result.json"
    claim(folder, run.config())
    if result_file.exists():
        return dict(json.loads(result_file.read_text()))
    first = restore(folder, learner)
    for epoch in range(first, run.recipe.epochs):

        def on_step(step: int, loss: float, epoch: int = epoch) -> None:
            if not progress(epoch, step, loss):
                raise Interruption

        batches = feed.training(data, run.recipe, run.seed, epoch, workers)
        losses = learner.train_epoch(batches, run.recipe.rate(epoch), on_step)
        if not np.isfinite(losses).all():
            raise UserError(
                f"{run.name}: the loss is not finite in epoch {epoch + 1}; try a smaller "
                f"--learning-rate. The checkpoint after epoch {epoch} stays"
            )
        save_epoch(folder, epoch, losses, learner)
    return _finish(learner, data, folder, workers)


def _finish(learner: Learner, data: Dataset, folder: Path, workers: int) -> dict[str, Any]:
    splits = ((data.x_train, data.y_train), (data.x_test, data.y_test))
    (train_loss, _), (test_loss, test_error) = (
        learner.evaluate(feed.evaluation(data, x, y, workers)) for x, y in splits
    )
    result = {
        "train_loss": train_loss.tolist(),
        "test_loss": test_loss.tolist(),
        "test_error": test_error.tolist(),
    }
    write_arrays(folder / "statistics.npz", preparation_for(data).arrays())
    write_arrays(folder / "weights.npz", learner.weights())
    write_json(folder / "result.json", result)
    return result
