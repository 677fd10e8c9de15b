"""The parts of the reference networks as Flax NNX modules; maps are (B, H, W, C).

Each is called like the part of the description that it is built from, and so are its layers.
Those of several scales are in `jax_multiscale`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from loss_balance.reference_models.description import multiscale, parts, units
from loss_balance.reference_models.jax.layers import (
    ConvNormReLU,
    average_pool,
    batch_norm,
    conv,
    global_average,
    max_pool,
)
from loss_balance.reference_models.jax.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)


class ConvStem(nnx.Module):
    """One 3x3 convolution."""

    def __init__(self, stem: parts.ConvStem, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        self.conv: nnx.Conv = conv(stem.in_channels, stem.out_channels, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H, W, out_channels)."""
        return self.conv(x)


class ImageStem(ConvNormReLU):
    """conv7x7/2-BN-ReLU-maxpool3x3/2."""

    def __init__(self, stem: parts.ImageStem, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        super().__init__(stem.in_channels, stem.out_channels, 7, 2, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H / 4, W / 4, out_channels)."""
        return max_pool(super().__call__(x))


class ResidualUnit(nnx.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus the input, averaged and zero-padded where shapes change."""

    def __init__(self, unit: units.ResidualUnit, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        inputs, outputs, stride = unit.in_channels, unit.out_channels, unit.stride
        self.norm1: nnx.BatchNorm = batch_norm(inputs, dtype=dtype, rngs=rngs)
        self.conv1: nnx.Conv = conv(inputs, outputs, 3, stride, dtype=dtype, rngs=rngs)
        self.norm2: nnx.BatchNorm = batch_norm(outputs, dtype=dtype, rngs=rngs)
        self.conv2: nnx.Conv = conv(outputs, outputs, 3, dtype=dtype, rngs=rngs)
        self.stride = stride
        self.padding: int = (outputs - inputs) // 2

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H / stride, W / stride, out_channels)."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return y + self.shortcut(x)

    def shortcut(self, x: Array) -> Array:
        """`x` in the shape of the output; no parameters."""
        if self.stride > 1:
            x = average_pool(x)
        if self.padding:
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.padding, self.padding)))
        return x


class BottleneckUnit(nnx.Module):
    """Three times BN-ReLU-conv (1x1, 3x3, 1x1) plus the input, or a 1x1 convolution of it."""

    def __init__(self, unit: units.BottleneckUnit, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        inputs, inner, outputs = unit.in_channels, unit.inner_channels, unit.out_channels
        self.norm1: nnx.BatchNorm = batch_norm(inputs, dtype=dtype, rngs=rngs)
        self.conv1: nnx.Conv = conv(inputs, inner, 1, dtype=dtype, rngs=rngs)
        self.norm2: nnx.BatchNorm = batch_norm(inner, dtype=dtype, rngs=rngs)
        self.conv2: nnx.Conv = conv(inner, inner, 3, unit.stride, dtype=dtype, rngs=rngs)
        self.norm3: nnx.BatchNorm = batch_norm(inner, dtype=dtype, rngs=rngs)
        self.conv3: nnx.Conv = conv(inner, outputs, 1, dtype=dtype, rngs=rngs)
        self.projects: bool = unit.projects
        if self.projects:
            self.shortcut: nnx.Conv = conv(inputs, outputs, 1, unit.stride, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H / stride, W / stride, out_channels), rounded up."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        y = self.conv3(nnx.relu(self.norm3(y)))
        return y + (self.shortcut(x) if self.projects else x)


class DenseUnit(nnx.Module):
    """The input and, behind it, the channels that BN-ReLU-conv, once or twice, makes of it."""

    def __init__(self, unit: units.DenseUnit, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        inputs, inner = unit.in_channels, unit.inner_channels
        self.bottleneck: bool = inner is not None
        self.norm1: nnx.BatchNorm = batch_norm(inputs, dtype=dtype, rngs=rngs)
        if inner is None:
            self.conv1: nnx.Conv = conv(inputs, unit.growth, 3, dtype=dtype, rngs=rngs)
        else:
            self.conv1 = conv(inputs, inner, 1, dtype=dtype, rngs=rngs)
            self.norm2: nnx.BatchNorm = batch_norm(inner, dtype=dtype, rngs=rngs)
            self.conv2: nnx.Conv = conv(inner, unit.growth, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H, W, in_channels + growth)."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        if self.bottleneck:
            y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate((x, y), axis=-1)


class DenseTransition(nnx.Module):
    """BN-ReLU-conv1x1-averagepool2x2."""

    def __init__(self, unit: units.DenseTransition, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        self.norm: nnx.BatchNorm = batch_norm(unit.in_channels, dtype=dtype, rngs=rngs)
        self.conv: nnx.Conv = conv(unit.in_channels, unit.out_channels, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H / 2, W / 2, out_channels)."""
        return average_pool(self.conv(nnx.relu(self.norm(x))))


class LinearHead(nnx.Module):
    """BN-ReLU-global average-linear."""

    def __init__(self, head: parts.LinearHead, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        self.norm: nnx.BatchNorm = batch_norm(head.in_channels, dtype=dtype, rngs=rngs)
        self.linear: nnx.Linear = nnx.Linear(head.in_channels, head.num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, num_classes), in float32 or wider."""
        return self.linear(global_average(nnx.relu(self.norm(x))))


class ConvHead(nnx.Module):
    """Twice conv3x3/2-BN-ReLU, then global average-linear."""

    def __init__(self, head: parts.ConvHead, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        inputs, filters = head.in_channels, head.filters
        self.conv1: nnx.Conv = conv(inputs, filters, 3, 2, dtype=dtype, rngs=rngs)
        self.norm1: nnx.BatchNorm = batch_norm(filters, dtype=dtype, rngs=rngs)
        self.conv2: nnx.Conv = conv(filters, filters, 3, 2, dtype=dtype, rngs=rngs)
        self.norm2: nnx.BatchNorm = batch_norm(filters, dtype=dtype, rngs=rngs)
        self.linear: nnx.Linear = nnx.Linear(filters, head.num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, num_classes), in float32 or wider."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.linear(global_average(x))


MODULES: dict[type[parts.Part | parts.Head], Callable[..., nnx.Module]] = {
    parts.ConvStem: ConvStem,
    parts.ImageStem: ImageStem,
    multiscale.MultiScaleStem: MultiScaleStem,
    units.ResidualUnit: ResidualUnit,
    units.BottleneckUnit: BottleneckUnit,
    units.DenseUnit: DenseUnit,
    units.DenseTransition: DenseTransition,
    multiscale.MultiScaleUnit: MultiScaleUnit,
    multiscale.MultiScaleTransition: MultiScaleTransition,
    parts.LinearHead: LinearHead,
    parts.ConvHead: ConvHead,
}
