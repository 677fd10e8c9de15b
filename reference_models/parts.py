"""The parts of an anytime network, before any framework: stem, units and exit heads.

A part lists its layers for a given input; parameter shapes and multiply-adds follow from the
layers. Every framework builds the same parts natively.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from loss_balance.base import check_count

Shape = tuple[int, int, int]  # (height, width, channels)
Features = tuple[Shape, ...]  # what parts pass on: one map per scale, finest first


class Layer(ABC):
    """An operation with parameters; pooling, ReLU and sums have none and cost nothing here."""

    @abstractmethod
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Trainable arrays: name to shape."""

    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Arrays that follow the data instead of a gradient: name to shape."""
        return {}

    def multiply_adds(self) -> int:
        """Per image."""
        return 0


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution without bias, `size` odd, padded with `size // 2` zeros on every side."""

    inputs: Shape
    filters: int
    size: int
    stride: int = 1

    @property
    def outputs(self) -> Shape:
        height, width, _ = self.inputs
        return (math.ceil(height / self.stride), math.ceil(width / self.stride), self.filters)

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": (self.size, self.size, self.inputs[2], self.filters)}

    def multiply_adds(self) -> int:
        return math.prod(self.outputs) * self.size**2 * self.inputs[2]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation over all but the channels."""

    channels: int

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"scale": (self.channels,), "bias": (self.channels,)}

    def statistics(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.channels,), "var": (self.channels,)}


@dataclass(frozen=True)
class Linear(Layer):
    """`x @ kernel + bias`."""

    inputs: int
    outputs: int

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": (self.inputs, self.outputs), "bias": (self.outputs,)}

    def multiply_adds(self) -> int:
        return self.inputs * self.outputs


class Part(ABC):
    """A stretch of the network between two points where it can stop: the stem or a unit."""

    @abstractmethod
    def layers(self, inputs: Features) -> dict[str, Layer]:
        """The layers by name, in order of computation."""

    @abstractmethod
    def outputs(self, inputs: Features) -> Features:
        """What the part makes of `inputs`; ValueError if it cannot take them."""


@dataclass(frozen=True)
class ConvStem(Part):
    """One 3x3 convolution, nothing after it (ResANN on CIFAR and SVHN)."""

    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_count("ConvStem.in_channels", self.in_channels)
        check_count("ConvStem.out_channels", self.out_channels)

    def layers(self, inputs: Features) -> dict[str, Layer]:
        return {"conv": Conv(inputs[0], self.out_channels, size=3)}

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = _single_map(inputs, self.in_channels)
        return ((height, width, self.out_channels),)


@dataclass(frozen=True)
class ResidualUnit(Part):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3 plus the input (He et al. 2016, pre-activation).

    Where the side is halved (`stride` 2, in the first convolution) the input is averaged over 2x2;
    where channels are added they are zeros, half in front and half behind. The shortcut has no
    parameters.
    """

    in_channels: int
    out_channels: int
    stride: int = 1

    def __post_init__(self) -> None:
        check_count("ResidualUnit.in_channels", self.in_channels)
        check_count("ResidualUnit.out_channels", self.out_channels)
        added = self.out_channels - self.in_channels
        if added < 0 or added % 2:
            raise ValueError(
                "ResidualUnit must add an even number of channels (zeros, half in front, half "
                f"behind), got {self.in_channels} -> {self.out_channels}"
            )
        if self.stride not in (1, 2):
            raise ValueError(f"ResidualUnit.stride must be 1 or 2, got {self.stride!r}")

    def layers(self, inputs: Features) -> dict[str, Layer]:
        conv1 = Conv(inputs[0], self.out_channels, size=3, stride=self.stride)
        return {
            "norm1": BatchNorm(self.in_channels),
            "conv1": conv1,
            "norm2": BatchNorm(self.out_channels),
            "conv2": Conv(conv1.outputs, self.out_channels, size=3),
        }

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = _single_map(inputs, self.in_channels)
        if height % self.stride or width % self.stride:
            raise ValueError(f"it halves the sides, which must be even, got {height}x{width}")
        return ((height // self.stride, width // self.stride, self.out_channels),)


@dataclass(frozen=True)
class ExitHead:
    """BN-ReLU-global average-linear, on the coarsest map."""

    in_channels: int
    num_classes: int

    def layers(self) -> dict[str, Layer]:
        """As `Part.layers`; the average makes the size of the input irrelevant."""
        return {
            "norm": BatchNorm(self.in_channels),
            "linear": Linear(self.in_channels, self.num_classes),
        }


def _single_map(inputs: Features, channels: int) -> Shape:
    (shape,) = inputs
    if shape[2] != channels:
        raise ValueError(f"it takes {channels} channels, got {shape[2]}")
    return shape
