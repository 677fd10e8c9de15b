"""One run of the study, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.beyond import results
from benchmarks.beyond.variants import VARIANTS
from loss_balance.experiments.data.sources import Source


@dataclass(frozen=True)
class Job:
    """One run: a variant, a seed and, for OPT, the exit that the network is cut after."""

    variant: str
    seed: int
    cut: int | None
    network: str
    data: str
    path: str | None
    validation: bool
    epochs: int | None
    rate: float | None

    @property
    def setting(self) -> str:
        """Where its result lies."""
        data = self.data if self.path is None else Path(self.path).stem
        parts = [self.network, data, "validation" * self.validation]
        parts += [f"{self.epochs}-epochs" if self.epochs else ""]
        parts += [f"rate-{self.rate:g}" if self.rate else ""]
        return "_".join(part for part in parts if part)

    @property
    def name(self) -> str:
        """Of its result."""
        cut = "" if self.cut is None else f" exit {self.cut + 1}"
        return f"{self.variant}{cut} seed {self.seed}"


def source_of(data: str, path: str | None, validation: bool) -> Source:
    """Where the images come from; those of a path are cropped and flipped."""
    if path is None:
        return Source(data, validation=validation)
    return Source("npz", Path(path), validation, "crop-flip")


def train(job: Job, out: Path, compiled: bool = False) -> dict[str, Any]:
    """Trains the job, keeps its result in `out` and returns it."""
    import torch

    from benchmarks.beyond.learner import StudyLearner
    from loss_balance.experiments.training import feed
    from loss_balance.experiments.training.loop import Run
    from loss_balance.experiments.training.recipes import RECIPES
    from loss_balance.reference_models import families

    torch.set_num_threads(1)
    source = source_of(job.data, job.path, job.validation)
    data = source.load()
    spec = families.get(job.network, num_classes=data.num_classes, input_shape=data.input_shape)
    spec = spec if job.cut is None else spec.single_exit(job.cut)
    recipe = RECIPES[source.name]
    recipe = replace(recipe, epochs=job.epochs or recipe.epochs)
    recipe = replace(recipe, learning_rate=job.rate or recipe.learning_rate)
    variant = VARIANTS[job.variant]
    steps = recipe.epochs * recipe.batches(len(data.y_train))
    run = Run(
        name=job.name,
        spec=spec,
        scheme=variant.scheme(len(spec.exits), steps),
        recipe=recipe,
        seed=job.seed,
        source=source,
        fingerprint=data.fingerprint(),
    )
    learner = StudyLearner(run, data, variant, compiled)
    for epoch in range(recipe.epochs):
        batches = feed.training(data, recipe, job.seed, epoch)
        learner.train_epoch(batches, recipe.rate(epoch), lambda *_: None)
    train_loss, _ = learner.evaluate(feed.evaluation(data, data.x_train, data.y_train))
    test_loss, test_error = learner.evaluate(feed.evaluation(data, data.x_test, data.y_test))
    result = {
        "train_loss": train_loss.tolist(),
        "test_loss": test_loss.tolist(),
        "test_error": test_error.tolist(),
        "loss_weight": learner.loss_weights(),
    }
    results.write(job.setting, job.name, out, result)
    return result
