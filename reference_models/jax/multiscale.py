"""MSDNet's parts as Flax NNX modules: lists of maps (B, H, W, C), finest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from loss_balance.reference_models.description import multiscale
from loss_balance.reference_models.jax.layers import ConvNormReLU, batch_norm, conv, max_pool


class MultiScaleStem(nnx.Module):
    """conv-BN-ReLU of the image, then of each map for the next coarser one.

    Sublayers: `scale0`, `scale1`, ...
    """

    def __init__(
        self, stem: multiscale.MultiScaleStem, *, dtype: Any = None, rngs: nnx.Rngs
    ) -> None:
        self.downsample: bool = stem.downsample
        self.scales: int = len(stem.out_channels)
        inputs = stem.in_channels
        for scale, channels in enumerate(stem.out_channels):
            size = 7 if scale == 0 and stem.downsample else 3
            stride = 2 if scale > 0 or stem.downsample else 1
            made = ConvNormReLU(inputs, channels, size, stride, dtype=dtype, rngs=rngs)
            setattr(self, f"scale{scale}", made)
            inputs = channels

    def __call__(self, x: Array) -> list[Array]:
        """(B, H, W, in_channels) to the maps, each half as high and wide as the one before."""
        maps: list[Array] = []
        for scale in range(self.scales):
            x = getattr(self, f"scale{scale}")(x)
            if scale == 0 and self.downsample:
                x = max_pool(x)
            maps.append(x)
        return maps


class Edge(nnx.Module):
    """conv1x1-BN-ReLU-conv3x3-BN-ReLU."""

    def __init__(self, edge: multiscale.Edge, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        inner, outputs = edge.inner_channels, edge.out_channels
        self.conv1: nnx.Conv = conv(edge.in_channels, inner, 1, dtype=dtype, rngs=rngs)
        self.norm1: nnx.BatchNorm = batch_norm(inner, dtype=dtype, rngs=rngs)
        self.conv2: nnx.Conv = conv(inner, outputs, 3, edge.stride, dtype=dtype, rngs=rngs)
        self.norm2: nnx.BatchNorm = batch_norm(outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, in_channels) to (B, H / stride, W / stride, out_channels)."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(self.norm2(self.conv2(y)))


class MultiScaleUnit(nnx.Module):
    """Every map kept, followed by new channels from its own scale, then from the next finer one.

    Sublayers: an `Edge` called `same0`, `down0`, ... for each of the description's edges.
    """

    def __init__(
        self, unit: multiscale.MultiScaleUnit, *, dtype: Any = None, rngs: nnx.Rngs
    ) -> None:
        self.dropped: int = unit.dropped
        self.edges: tuple[tuple[str, int, int], ...] = tuple(
            (edge.name, edge.source, edge.target) for edge in unit.edges()
        )
        for edge in unit.edges():
            setattr(self, edge.name, Edge(edge, dtype=dtype, rngs=rngs))

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        """Maps with `in_channels` to maps with `growth` more, those dropped left out."""
        found = [[x] for x in maps[self.dropped :]]
        for name, source, target in self.edges:
            found[target].append(getattr(self, name)(maps[source]))
        return [jnp.concatenate(features, axis=-1) for features in found]


class MultiScaleTransition(nnx.Module):
    """conv1x1-BN-ReLU on every scale. Sublayers: `scale0`, `scale1`, ..."""

    def __init__(
        self, unit: multiscale.MultiScaleTransition, *, dtype: Any = None, rngs: nnx.Rngs
    ) -> None:
        for scale, (inputs, outputs) in enumerate(
            zip(unit.in_channels, unit.out_channels, strict=True)
        ):
            made = ConvNormReLU(inputs, outputs, 1, dtype=dtype, rngs=rngs)
            setattr(self, f"scale{scale}", made)

    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        """Maps with `in_channels` to maps with `out_channels`."""
        return [getattr(self, f"scale{scale}")(x) for scale, x in enumerate(maps)]
