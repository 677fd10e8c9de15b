"""The parts of an anytime network, before any framework: stems and exit heads, and what a part is.

A part lists its layers for a given input. Every framework builds the same parts natively. The units
between stem and heads are in `units` and `multiscale`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from loss_balance.checks import check_count
from loss_balance.reference_models.description.layers import (
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Shape,
    halved,
)

Module = TypeVar("Module")  # of some framework
Features = tuple[Shape, ...]  # what parts pass on: one map per scale, finest first


class Part(ABC):
    """A stretch of the network between two points where it can stop: the stem or a unit."""

    @abstractmethod
    def layers(self, inputs: Features) -> dict[str, Layer]:
        """The layers by name, in order of computation."""

    @abstractmethod
    def outputs(self, inputs: Features) -> Features:
        """What the part makes of `inputs`; ValueError if it cannot take them."""


class Head(ABC):
    """The classifier of an exit; it reads the coarsest map."""

    in_channels: int
    num_classes: int

    @abstractmethod
    def layers(self, inputs: Shape) -> dict[str, Layer]:
        """The head's layers, as of `Part.layers`."""


@dataclass(frozen=True)
class ConvStem(Part):
    """One 3x3 convolution, nothing after it (ResANN and DenseANN on CIFAR and SVHN)."""

    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels")

    def layers(self, inputs: Features) -> dict[str, Layer]:
        return {"conv": Conv(inputs[0], self.out_channels, size=3)}

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = single_map(inputs, self.in_channels)
        return ((height, width, self.out_channels),)


@dataclass(frozen=True)
class ImageStem(Part):
    """conv7x7/2-BN-ReLU-maxpool3x3/2, both padded symmetrically (ResANN and DenseANN, ILSVRC)."""

    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels")

    def layers(self, inputs: Features) -> dict[str, Layer]:
        return {
            "conv": Conv(inputs[0], self.out_channels, size=7, stride=2),
            "norm": BatchNorm(self.out_channels),
        }

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = halved(halved(single_map(inputs, self.in_channels)))
        return ((height, width, self.out_channels),)


@dataclass(frozen=True)
class LinearHead(Head):
    """BN-ReLU-global average-linear (paper Section 5)."""

    in_channels: int
    num_classes: int

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes")

    def layers(self, inputs: Shape) -> dict[str, Layer]:
        return {
            "norm": BatchNorm(inputs[2]),
            "linear": Linear(inputs[2], self.num_classes),
        }


@dataclass(frozen=True)
class ConvHead(Head):
    """Twice conv3x3/2-BN-ReLU, then global average-linear (MSDNet)."""

    in_channels: int
    filters: int
    num_classes: int

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "filters", "num_classes")

    def layers(self, inputs: Shape) -> dict[str, Layer]:
        conv1 = Conv(inputs, self.filters, size=3, stride=2)
        return {
            "conv1": conv1,
            "norm1": BatchNorm(self.filters),
            "conv2": Conv(conv1.outputs, self.filters, size=3, stride=2),
            "norm2": BatchNorm(self.filters),
            "linear": Linear(self.filters, self.num_classes),
        }


def check_counts(part: Part | Head, *names: str) -> None:
    """ValueError unless these fields are whole numbers of at least 1."""
    for name in names:
        check_count(f"{type(part).__name__}.{name}", getattr(part, name))


def single_map(inputs: Features, channels: int) -> Shape:
    """The one map of `inputs`; ValueError if there are more or it has other channels."""
    if len(inputs) != 1:
        raise ValueError(f"it takes one map, got {len(inputs)} scales")
    check_channels(inputs[0], channels)
    return inputs[0]


def check_channels(found: Shape, channels: int) -> None:
    """ValueError unless the map has so many."""
    if found[2] != channels:
        raise ValueError(f"it takes {channels} channels, got {found[2]}")


def module_for(part: Any, modules: Mapping[type, Module]) -> Module:
    """A framework's module for a part of a spec; ValueError if its table has none."""
    if type(part) not in modules:
        kinds = [kind.__name__ for kind in modules]
        raise ValueError(f"a part must be one of {kinds}, got {part!r}")
    return modules[type(part)]
