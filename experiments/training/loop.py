"""One training run, the same loop for every framework: epochs, checkpoints, resume, evaluation.

`run_folder` says what the run leaves on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.backends.interface import scheme_config
from loss_balance.experiments.data.dataset import Images, Labels
from loss_balance.experiments.data.preparation import preparation_for
from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.environment import environment
from loss_balance.experiments.training.identity import identity
from loss_balance.experiments.training.learners.interface import Learner
from loss_balance.experiments.training.reading import METRICS, read_result
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.run_folder import (
    claim,
    note_environment,
    restore,
    save_epoch,
    write_arrays,
    write_json,
)
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.reference_models.description.config import to_config
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.schemes.base import Scheme

Progress = Callable[[int, int, float], bool]  # (epoch, step, loss of the last exit) -> go on
Record = dict[str, Any]  # a line of metrics.jsonl


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained: equal runs end in equal numbers, however often they are evaluated."""

    name: str
    spec: NetSpec
    scheme: Scheme
    recipe: Recipe
    seed: int
    source: Source
    fingerprint: str  # of the data
    engine: Engine = field(default_factory=Engine)
    coupling: Coupling = field(default_factory=Coupling)
    evaluate_every: int = field(default=0, compare=False)  # epochs; 0 is at the end alone

    def steps(self, images: int) -> int:
        """Of the whole training, over so many images."""
        return self.recipe.epochs * self.recipe.batches(images)

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the test images are asked for after this epoch, counted from 0."""
        return self.evaluate_every > 0 and (epoch + 1) % self.evaluate_every == 0

    def identity(self) -> str:
        """A digest, equal for runs that end in equal numbers, wherever they and their data lie."""
        return identity(self.config())

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
            "engine": self.engine.config(),
        }


def train(
    run: Run,
    learner: Learner,
    data: Dataset,
    folder: Path,
    progress: Progress,
    workers: int = 0,
    on_epoch: Callable[[Record], object] = lambda _: None,
) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint if there is one, and returns the result.

    The result: `train_loss`, `test_loss` and `test_error` per exit, of the finished network in
    evaluation mode over the whole split. `workers` processes read streamed images. `on_epoch` gets
    the line of metrics.jsonl. Of a crew all processes call this; the first one writes.

    Raises:
        Interruption: `progress` returned False.
        UserError: the loss stopped being finite, the disk is full, or the folder holds another run
            or no checkpoint that can be read. What was reached before stays.
    """
    crew = learner.crew
    result_file = folder / "result.json"
    leads = crew.rank == 0
    if leads:
        claim(folder, run.config())
    crew.wait()
    if result_file.exists():
        return dict(read_result(folder, len(run.spec.exits)))
    first = restore(folder, learner, mends=leads)
    if leads:
        note_environment(folder, environment(run.engine))
    left = range(first, run.recipe.epochs)
    fed = feed.epochs(data, run.recipe, run.seed, left, workers, crew.part)
    tests = _tests(run, data, left, workers, crew.part)
    for epoch, batches in zip(left, fed, strict=True):

        def on_step(step: int, loss: float, epoch: int = epoch) -> None:
            if not crew.all(progress(epoch, step, loss)):
                raise Interruption

        began = time.perf_counter()
        losses = learner.train_epoch(batches, run.recipe.rate(epoch), on_step)
        seconds = time.perf_counter() - began
        if not np.isfinite(losses).all():
            stays = f". The checkpoint after epoch {epoch} stays" * (epoch > 0)
            raise UserError(
                f"{run.name}: the loss is not finite in epoch {epoch + 1}; try a smaller "
                f"--learning-rate{stays}"
            )
        images = run.recipe.batches(len(data.y_train)) * run.recipe.batch_size
        record = {
            "epoch": epoch + 1,
            "train_loss": losses.tolist(),
            "loss_weight": learner.loss_weights(),
            "seconds": seconds,
            "images_per_second": images / seconds,
        }
        if run.evaluates_after(epoch):
            record |= _tested(learner, next(tests))
        crew.check_equal("loss weights", record["loss_weight"])
        state = learner.state()
        if leads:
            save_epoch(folder, record, state)
            on_epoch(record)
    return _finish(learner, data, folder, workers, next(tests))


def _tests(
    run: Run, data: Dataset, epochs: range, workers: int, part: slice
) -> Iterator[Iterator[tuple[Images, Labels]]]:
    """The test images, for each time that they are asked for: after some epochs, and at the end."""
    times = 1 + sum(run.evaluates_after(epoch) for epoch in epochs)
    return feed.evaluations(data, data.x_test, data.y_test, times, workers, part)


def _tested(learner: Learner, split: Iterator[tuple[Images, Labels]]) -> Record:
    loss, error = learner.evaluate(split)
    return {"test_loss": loss.tolist(), "test_error": error.tolist()}


def _finish(
    learner: Learner,
    data: Dataset,
    folder: Path,
    workers: int,
    test: Iterator[tuple[Images, Labels]],
) -> dict[str, Any]:
    split = feed.evaluation(data, data.x_train, data.y_train, workers, learner.crew.part)
    train_loss, _ = learner.evaluate(split)
    measured = {"train_loss": train_loss.tolist(), **_tested(learner, test)}
    result = {name: measured[name] for name in METRICS}
    weights = learner.weights()
    if learner.crew.rank == 0:
        write_arrays(folder / "statistics.npz", preparation_for(data).arrays())
        write_arrays(folder / "weights.npz", weights)
        write_json(folder / "result.json", result)
    return result
