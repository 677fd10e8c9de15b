"""Operations with parameters, before any framework: what a part of a network lists.

Parameter shapes and multiply-adds follow from them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

Shape = tuple[int, int, int]  # (height, width, channels)


def halved(shape: Shape) -> Shape:
    """The shape after a stride of 2 with symmetric padding: sides rounded up."""
    return (math.ceil(shape[0] / 2), math.ceil(shape[1] / 2), shape[2])


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


BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_DECAY = 0.9  # of the running statistics


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
