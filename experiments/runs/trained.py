"""A finished run, read back from its folder: what was trained, its errors, and its network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.anytime import calibrate
from loss_balance.experiments.data import preparation
from loss_balance.experiments.data.preparation import Preparation
from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import Engine, check_installed
from loss_balance.experiments.training.learners.by_framework import use_one_thread
from loss_balance.experiments.training.own import network
from loss_balance.experiments.training.reading import (
    intact,
    read_config,
    read_metrics,
    read_result,
)
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import Coupling, name_of
from loss_balance.reference_models.description.config import from_config
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.reference_models.description.weights import (
    Weights,
    check_shapes,
    load,
    shapes_in,
)

REQUIRED = ("config.json", "result.json", "metrics.jsonl", "weights.npz", "statistics.npz")

WARM_UP = 3  # runs before times count: compilation, caches


class TrainedNetwork:
    """A trained network in its framework; takes standardised images (B, H, W, C) of NumPy.

    It runs where its framework puts it: PyTorch on the CPU, TensorFlow and JAX on a GPU that they
    see; on a CPU in one thread, for several wait for each other as soon as others use the cores
    too, and times would tell of that. An answer is there once it has come back as a NumPy array.

    Attributes:
        net: the framework's own network, in evaluation mode.
    """

    def __init__(self, spec: NetSpec, framework: str, weights: Weights) -> None:
        check_installed(framework)
        use_one_thread(framework)
        self.net: Any = network(spec, framework, 0)
        self.net.load_weights(weights)
        self._native: Callable[[NDArray[np.float32]], Any] = lambda images: images
        if framework == "torch":
            self.net.requires_grad_(requires_grad=False)
            self._native = import_module("loss_balance.reference_models.torch").native
        if framework != "tensorflow":  # where each call says whether it trains
            self.net.eval()

    def anytime(self, images: NDArray[np.float32]) -> Generator[NDArray[Any], Any, None]:
        """Logits (B, num_classes), one exit at a time.

        `send(positions)` goes on with these samples of the current batch and returns their next
        logits.
        """
        kept = None
        with closing(self.net.anytime(self._native(images))) as answers:
            while True:
                try:
                    logits = answers.send(kept)
                except StopIteration:
                    return
                kept = yield logits.numpy() if hasattr(logits, "numpy") else np.asarray(logits)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One run folder."""

    folder: Path
    config: dict[str, Any]  # as of `Run.config`
    result: dict[str, list[float]]  # as of `training.train`
    spec: NetSpec
    scheme: str  # as the command line calls it
    recipe: Recipe
    source: Source
    engine: Engine

    def summary(self) -> dict[str, Any]:
        """What was trained and what came of it, as JSON holds it."""
        costs = self.spec.costs()
        return {
            "network": self.spec.name,
            "data": self.source.name,
            "validation": self.source.validation,
            "scheme": self.scheme,
            "seed": self.config["seed"],
            "epochs": self.recipe.epochs,
            "multiply_adds": [cost.multiply_adds for cost in costs],
            **self.result,
            "loss_weight": self.loss_weights[-1].tolist(),
        }

    @property
    def fingerprint(self) -> str:
        """The checksum of the data."""
        return str(self.config["fingerprint"])

    @property
    def framework(self) -> str:
        """The framework it was trained in."""
        return self.engine.framework

    @property
    def name(self) -> str:
        """What the network is called."""
        return self.spec.name

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of an image."""
        return self.spec.input_shape

    @property
    def num_exits(self) -> int:
        """How often the network answers."""
        return len(self.spec.exits)

    @property
    def test_error(self) -> tuple[float, ...]:
        """Error of each exit on the split that the run was tested on."""
        return tuple(self.result["test_error"])

    @property
    def validation_error(self) -> tuple[float, ...] | None:
        """Error of each exit on training images that were held out; None if none were."""
        return self.test_error if self.source.validation else None

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The epochs, as `reading.read_metrics` has them."""
        return read_metrics(self.folder, len(self.spec.exits))

    @property
    def loss_weights(self) -> NDArray[np.float64]:
        """The weight of each exit's loss after each epoch, (epochs, exits)."""
        return np.array([epoch["loss_weight"] for epoch in self.metrics])

    @cached_property
    def preparation(self) -> Preparation:
        """What makes an image the network's input."""
        return preparation.read(self.folder / "statistics.npz", self.spec.input_shape)

    @cached_property
    def network(self) -> TrainedNetwork:
        """The network with its trained weights."""
        return TrainedNetwork(self.spec, self.framework, self.weights())

    def weights(self) -> Weights:
        """The trained weights; UserError if they are damaged or not this network's."""
        path = self.folder / "weights.npz"
        with intact(path):
            check_shapes(self.spec, shapes_in(path))  # before anything is unpacked
            return load(path)

    def data(self, path: Path | None = None) -> Dataset:
        """The data as training saw them, from `path` if they have moved.

        Raises:
            UserError: they are gone, or others than the run was trained on.
        """
        source = self.source if path is None else replace(self.source, path=path)
        data = source.load()
        if data.fingerprint() != self.fingerprint:
            raise UserError(f"{self.folder} was trained on other data than {source.name} now is")
        return data

    def test_data(self) -> Dataset:
        """The data with its own test split, which no training image is in.

        Raises:
            UserError: they are gone, or others than the run was trained on.
        """
        data = self.data()
        return replace(self.source, validation=False).load() if self.source.validation else data

    def errors(self, data: Dataset) -> tuple[float, ...]:
        """Error rate of each exit over the test split of `data`."""
        wrong = np.zeros(len(self.spec.exits))
        for images, labels in feed.evaluation(data, data.x_test, data.y_test):
            answers = self.network.anytime(self.preparation.standardise(images))
            wrong += [(logits.argmax(axis=1) != labels).sum() for logits in answers]
        return tuple((wrong / len(data.y_test)).tolist())

    def times(self, repeats: int) -> tuple[float, ...]:
        """Median seconds from the start to each exit, for one image, after a warm-up."""
        return times_of(self.network, self.input_shape, repeats)


def times_of(net: Any, shape: Shape, repeats: int) -> tuple[float, ...]:
    """Median seconds from the start to each exit, for one image (H, W, C), after a warm-up."""
    image = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    return calibrate(net, image, repeats, warm_up=WARM_UP)


def read(folder: Path) -> Trained:
    """The run in `folder`.

    Raises:
        UserError: it is not there, not finished, or not as training left it.
    """
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"RUN must be the folder of a finished run, such as runs/compare/runs/adaloss-seed0; "
            f"{folder} lacks {', '.join(missing)}"
        )
    config = read_config(folder)
    with intact(folder / "config.json"):
        recipe = config["recipe"]
        spec = from_config(config["spec"])
        return Trained(
            folder=folder,
            config=config,
            result=read_result(folder, len(spec.exits)),
            spec=spec,
            scheme=name_of(config["scheme"], Coupling(**config["coupling"])),
            recipe=Recipe(**{**recipe, "milestones": tuple(recipe["milestones"])}),
            source=Source.from_config(config["data"]),
            engine=Engine(**config["engine"]),
        )


def find(places: Sequence[Path]) -> list[Trained]:
    """The runs in each place: a run's folder, or all finished runs somewhere below it.

    Raises:
        UserError: a place has none, or one is not as training left it.
    """
    runs: dict[Path, Trained] = {}
    for place in places:
        folders = [file.parent for file in sorted(place.rglob("result.json"))]
        if not folders:
            raise UserError(f"RUNS must have finished runs in them, {place} has none")
        for folder in folders:
            runs.setdefault(folder.resolve(), read(folder))
    return list(runs.values())
