"""One training run, the same loop for every framework: epochs, checkpoints, resume, evaluation.

A run folder holds `config.json` (what is trained), `metrics.jsonl` (a line per epoch),
`checkpoint.npz` (everything needed to go on) and, once finished, `weights.npz` (for
`AnytimeNet.load_weights` of any framework) and `result.json`. Nothing in it is a pickle.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loss_balance.base import Scheme
from loss_balance.experiments.data import Dataset, Images, Labels
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.recipes import Recipe, epoch_order
from loss_balance.reference_models.spec import AnytimeSpec
from loss_balance.reference_models.weights import load as read_npz

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int, int, float], bool]  # (epoch, step, loss of the last exit) -> go on


class Interruption(Exception):  # noqa: N818 (asked for, not an error)
    """The run was asked to stop; it continues from its last checkpoint."""


class Learner(Protocol):
    """A network, its optimiser and its balancer, in some framework."""

    def train_epoch(
        self, order: NDArray[np.int64], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        """Mean loss of each exit over the epoch's batches, shape (num_exits,)."""

    def evaluate(self, x: Images, y: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean cross-entropy, error rate) of each exit over all images, both (num_exits,)."""

    def loss_weights(self) -> list[float]:
        """The current weight of each exit's loss."""

    def weights(self) -> Arrays:
        """The network under the spec's names, for `weights.npz`."""

    def state(self) -> Arrays:
        """All that training depends on, exactly."""

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `state`."""


@dataclass(frozen=True)
class Run:
    """What is trained: equal runs end in equal numbers."""

    name: str
    spec: AnytimeSpec
    scheme: Scheme
    recipe: Recipe
    seed: int
    data: str  # the data set's fingerprint

    def config(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "network": self.spec.name,
            "input_shape": list(self.spec.input_shape),
            "exits": list(self.spec.exits),
            "num_classes": self.spec.num_classes,
            "scheme": repr(self.scheme),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "data": self.data,
        }


def train(
    run: Run, learner: Learner, data: Dataset, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint if there is one, and returns the result.

    The result: `train_loss`, `test_loss` and `test_error` per exit, of the finished network in
    evaluation mode over the whole split.

    Raises:
        Interruption: `progress` returned False.
        UserError: the loss stopped being finite, or the folder holds another run.
    """
    result_file = folder / "result.json"
    _claim(folder, run.config())
    if result_file.exists():
        return dict(json.loads(result_file.read_text()))
    first = _restore(folder, learner)
    for epoch in range(first, run.recipe.epochs):

        def on_step(step: int, loss: float, epoch: int = epoch) -> None:
            if not progress(epoch, step, loss):
                raise Interruption

        order = epoch_order(run.seed, epoch, len(data.y_train), run.recipe)
        losses = learner.train_epoch(order, run.recipe.rate(epoch), on_step)
        if not np.isfinite(losses).all():
            raise UserError(
                f"{run.name}: the loss is not finite in epoch {epoch + 1}; "
                "try a smaller --learning-rate"
            )
        _save_epoch(folder, epoch, losses, learner)
    return _finish(learner, data, folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run: `epoch`, `train_loss` and `loss_weight` per exit."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """The file is the old one or the new one, wherever the process dies."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """As `write_atomically`, indented."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_arrays(path: Path, arrays: Arrays) -> None:
    """As `write_atomically`, an npz."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getbuffer())


def _claim(folder: Path, config: dict[str, Any]) -> None:
    """Makes the folder this run's, or refuses if it is another's."""
    file = folder / "config.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
    elif json.loads(file.read_text()) != json.loads(json.dumps(config)):
        raise UserError(f"{folder} holds another run: choose another --out or use --overwrite")


def _save_epoch(folder: Path, epoch: int, losses: NDArray[np.float64], learner: Learner) -> None:
    """The line first, the checkpoint last: what the checkpoint counts is surely there."""
    record = {
        "epoch": epoch + 1,
        "train_loss": losses.tolist(),
        "loss_weight": learner.loss_weights(),
    }
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
    checkpoint = {"epochs": np.array(epoch + 1), **learner.state()}
    write_arrays(folder / "checkpoint.npz", checkpoint)


def _restore(folder: Path, learner: Learner) -> int:
    """Loads the last checkpoint, drops what came after it, and returns the epochs it counts."""
    file, metrics = folder / "checkpoint.npz", folder / "metrics.jsonl"
    if not file.exists():
        metrics.unlink(missing_ok=True)
        return 0
    try:
        arrays = read_npz(file)
        epochs = int(arrays.pop("epochs"))
        learner.load_state(arrays)
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} cannot be read ({error}): start anew with --overwrite") from error
    lines = metrics.read_text().splitlines(keepends=True)
    write_atomically(metrics, "".join(lines[:epochs]).encode())
    return epochs


def _finish(learner: Learner, data: Dataset, folder: Path) -> dict[str, Any]:
    train_loss, _ = learner.evaluate(data.x_train, data.y_train)
    test_loss, test_error = learner.evaluate(data.x_test, data.y_test)
    result = {
        "train_loss": train_loss.tolist(),
        "test_loss": test_loss.tolist(),
        "test_error": test_error.tolist(),
    }
    write_arrays(folder / "weights.npz", learner.weights())
    write_json(folder / "result.json", result)
    return result
