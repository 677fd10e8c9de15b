"""Parts with several scales, before any framework: MSDNet (Huang et al. 2018)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from loss_balance.checks import check_count
from loss_balance.reference_models.description.layers import BatchNorm, Conv, Layer, Shape, halved
from loss_balance.reference_models.description.parts import (
    Features,
    Part,
    check_channels,
    check_counts,
    single_map,
)


@dataclass(frozen=True)
class MultiScaleStem(Part):
    """The first map of every scale, each made from the one before it by conv3x3/2-BN-ReLU.

    The finest is conv3x3-BN-ReLU of the image, or conv7x7/2-BN-ReLU-maxpool3x3/2 if `downsample`.
    """

    in_channels: int
    out_channels: tuple[int, ...]  # per scale, finest first
    downsample: bool = False

    def __post_init__(self) -> None:
        _as_tuples(self, "out_channels")
        check_counts(self, "in_channels")
        _check_channels("MultiScaleStem.out_channels", self.out_channels)

    def layers(self, inputs: Features) -> dict[str, Layer]:
        sources = (inputs[0], *self.outputs(inputs))
        layers: dict[str, Layer] = {}
        for scale, channels in enumerate(self.out_channels):
            size = 7 if scale == 0 and self.downsample else 3
            stride = 2 if scale > 0 or self.downsample else 1
            layers[f"scale{scale}.conv"] = Conv(sources[scale], channels, size, stride)
            layers[f"scale{scale}.norm"] = BatchNorm(channels)
        return layers

    def outputs(self, inputs: Features) -> Features:
        shape = single_map(inputs, self.in_channels)
        if self.downsample:
            shape = halved(halved(shape))
        maps = []
        for channels in self.out_channels:
            maps.append((shape[0], shape[1], channels))
            shape = halved(shape)
        return tuple(maps)


class Edge(NamedTuple):
    """conv1x1-BN-ReLU-conv3x3-BN-ReLU from one scale to the same or the next coarser one."""

    name: str  # `same<target>` or `down<target>`
    source: int  # index among the unit's inputs
    target: int  # index among its outputs
    in_channels: int
    inner_channels: int
    out_channels: int
    stride: int


@dataclass(frozen=True)
class MultiScaleUnit(Part):
    """Every map followed by `growth` new channels, from its own scale and the next finer one.

    With fewer entries in `growth` than in `in_channels` the finest maps are dropped; the finest
    dropped one is still read by the scale below it. A map that has a finer one takes half of its
    new channels from either, otherwise all from itself. Concatenated as (old, same scale, finer
    scale), as in the authors' code.

    Args:
        in_channels: per scale, finest first.
        growth: new channels per scale kept.
        bottleneck: per scale of the input: its 1x1 convolutions make this many times the channels
            of the edge they belong to, at most as many as they read.
    """

    in_channels: tuple[int, ...]
    growth: tuple[int, ...]
    bottleneck: tuple[int, ...]

    def __post_init__(self) -> None:
        _as_tuples(self, "in_channels", "growth", "bottleneck")
        _check_channels("MultiScaleUnit.in_channels", self.in_channels)
        _check_channels("MultiScaleUnit.growth", self.growth)
        _check_channels("MultiScaleUnit.bottleneck", self.bottleneck)
        if len(self.bottleneck) != len(self.in_channels) or self.dropped < 0:
            raise ValueError(
                "MultiScaleUnit must have a bottleneck for each scale of the input and no more "
                f"scales after it than before, got {len(self.bottleneck)} bottlenecks, "
                f"{len(self.in_channels)} -> {len(self.growth)} scales"
            )
        if any(edge.out_channels < 1 for edge in self.edges()):
            raise ValueError(
                "MultiScaleUnit.growth must be at least 2 where two scales share it, got "
                f"{self.growth}"
            )

    @property
    def dropped(self) -> int:
        """How many of the finest scales end here."""
        return len(self.in_channels) - len(self.growth)

    def edges(self) -> tuple[Edge, ...]:
        """What is computed, in order: for each scale kept, its own edge, then the finer one's."""
        edges = []
        for target, growth in enumerate(self.growth):
            source = target + self.dropped
            own = growth // 2 if source > 0 else growth
            edges.append(self._edge("same", source, target, own))
            if source > 0:
                edges.append(self._edge("down", source - 1, target, growth - own))
        return tuple(edges)

    def _edge(self, kind: str, source: int, target: int, out_channels: int) -> Edge:
        in_channels = self.in_channels[source]
        inner = min(in_channels, self.bottleneck[source] * out_channels)
        stride = 2 if kind == "down" else 1
        return Edge(f"{kind}{target}", source, target, in_channels, inner, out_channels, stride)

    def layers(self, inputs: Features) -> dict[str, Layer]:
        layers: dict[str, Layer] = {}
        for edge in self.edges():
            conv1 = Conv(inputs[edge.source], edge.inner_channels, size=1)
            conv2 = Conv(conv1.outputs, edge.out_channels, size=3, stride=edge.stride)
            layers |= {
                f"{edge.name}.conv1": conv1,
                f"{edge.name}.norm1": BatchNorm(edge.inner_channels),
                f"{edge.name}.conv2": conv2,
                f"{edge.name}.norm2": BatchNorm(edge.out_channels),
            }
        return layers

    def outputs(self, inputs: Features) -> Features:
        _check_maps(inputs, self.in_channels)
        for finer, coarser in itertools.pairwise(inputs):
            if halved(finer)[:2] != coarser[:2]:
                raise ValueError(
                    f"each scale must be half of the one before, got {_sides(finer)} and "
                    f"{_sides(coarser)}"
                )
        kept = zip(inputs[self.dropped :], self.growth, strict=True)
        return tuple((h, w, channels + growth) for (h, w, channels), growth in kept)


@dataclass(frozen=True)
class MultiScaleTransition(Part):
    """conv1x1-BN-ReLU on every scale."""

    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]

    def __post_init__(self) -> None:
        _as_tuples(self, "in_channels", "out_channels")
        _check_channels("MultiScaleTransition.in_channels", self.in_channels)
        _check_channels("MultiScaleTransition.out_channels", self.out_channels)
        if len(self.in_channels) != len(self.out_channels):
            raise ValueError(
                "MultiScaleTransition must keep all scales, got "
                f"{len(self.in_channels)} -> {len(self.out_channels)}"
            )

    def layers(self, inputs: Features) -> dict[str, Layer]:
        layers: dict[str, Layer] = {}
        for scale, channels in enumerate(self.out_channels):
            layers[f"scale{scale}.conv"] = Conv(inputs[scale], channels, size=1)
            layers[f"scale{scale}.norm"] = BatchNorm(channels)
        return layers

    def outputs(self, inputs: Features) -> Features:
        _check_maps(inputs, self.in_channels)
        return tuple((h, w, c) for (h, w, _), c in zip(inputs, self.out_channels, strict=True))


def _as_tuples(part: Part, *names: str) -> None:
    for name in names:
        object.__setattr__(part, name, tuple(getattr(part, name)))  # a list would not hash


def _check_channels(name: str, channels: tuple[int, ...]) -> None:
    check_count(f"the number of scales in {name}", len(channels))
    for count in channels:
        check_count(f"every entry of {name}", count)


def _check_maps(inputs: Features, channels: tuple[int, ...]) -> None:
    if len(inputs) != len(channels):
        raise ValueError(f"it takes {len(channels)} scales, got {len(inputs)}")
    for found, count in zip(inputs, channels, strict=True):
        check_channels(found, count)


def _sides(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}"
