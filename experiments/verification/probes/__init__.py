"""What a network does in some framework, through NumPy: for tests and `loss-balance verify`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Labels
from loss_balance.experiments.training.engine import FRAMEWORKS
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights, initialise
from loss_balance.schemes.base import Scheme

PROBES = {"torch": "TorchProbe", "tensorflow": "TensorFlowProbe", "jax": "JaxProbe"}
InputImages = NDArray[np.float32]  # (B, H, W, C)
Pulls = tuple[tuple[float, ...], float] | None  # (weight of each exit, strength of the guidance)
Logits = list[NDArray[Any]]  # of each exit, (B, num_classes)


def random_weights(spec: AnytimeSpec, seed: int = 1) -> Weights:
    """Weights in which no array is constant, so that none can be left out or mixed up."""
    rng = np.random.default_rng(seed)
    drawn = initialise(spec, seed)
    for name, array in drawn.items():
        if name.endswith((".scale", ".var")):
            drawn[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        elif name.endswith((".bias", ".mean")):
            drawn[name] = rng.normal(0.0, 0.3, array.shape).astype(np.float32)
    return drawn


def random_batch(spec: AnytimeSpec, size: int = 4, seed: int = 2) -> tuple[InputImages, Labels]:
    """(images (size, H, W, C), labels (size,))."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, *spec.input_shape), np.float32)
    return images, rng.integers(spec.num_classes, size=size)


class Probe(Protocol):
    """One framework's `AnytimeNet`, a network of which is `net` below."""

    def network(self, spec: AnytimeSpec, seed: int = 0) -> Any:
        """`AnytimeNet(spec, seed)`."""

    def trainable_size(self, spec: AnytimeSpec) -> int:
        """The number of trainable scalars in the built network, as the framework counts them."""

    def predict(self, net: Any, images: InputImages) -> Logits:
        """A call in evaluation mode."""

    def anytime(self, net: Any, images: InputImages) -> Iterator[NDArray[Any]]:
        """`net.anytime` in evaluation mode, as lazy as that."""

    def gradients(
        self, net: Any, images: InputImages, labels: Labels, pulls: Pulls = None
    ) -> tuple[Logits, Weights]:
        """(logits in training mode, gradients by the spec's names and layouts).

        The loss is the sum over exits of the mean cross-entropy; with `pulls` the trunk's gradient
        is in equilibrium by these weights, and early exits are guided so strongly. Running
        statistics are updated, parameters are not.
        """

    def train(
        self,
        net: Any,
        scheme: Scheme,
        images: InputImages,
        labels: Labels,
        *,
        steps: int,
        learning_rate: float,
    ) -> NDArray[np.float64]:
        """Plain SGD on the exits' mean cross-entropies, balanced by `scheme`, on one batch.

        Compiled where that is the framework's habit. Returns the losses, (steps, num_exits).
        """


def probe_of(framework: str) -> Probe:
    """The probe of an installed framework."""
    module = import_module(f"{__name__}.{FRAMEWORKS[framework]}")
    probe: Probe = getattr(module, PROBES[framework])()
    return probe
