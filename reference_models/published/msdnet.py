"""The MSDNets: numbers in, `AnytimeSpec` out.

The authors of AdaLoss count the stem and the transitions as units, the authors of MSDNet (Huang et
al. 2018) neither; both layouts are here, with the numbers of their published code.
"""

from __future__ import annotations

from collections.abc import Sequence

from loss_balance.checks import check_count
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)
from loss_balance.reference_models.description.parts import ConvHead, Part
from loss_balance.reference_models.description.spec import AnytimeSpec, exits_every, option

_CIFAR_SCALES = (1, 2, 4)  # channels, growth and bottleneck of each scale over the finest's
_IMAGENET_SCALES = (1, 2, 4, 4)
_CIFAR_GROWTH, _IMAGENET_GROWTH = 6, 16
_CIFAR_FILTERS = 128  # of the heads; on ILSVRC as many as come in


def msdnet(
    depth: int = 24,
    num_classes: int = 10,
    *,
    input_shape: Shape = (32, 32, 3),
    period: int | None = None,
) -> AnytimeSpec:
    """MSDNet for CIFAR in the AdaLoss authors' layout: three blocks of depth / 3 units.

    The stem and the two transitions count among the units. An exit stands after every `period`
    units, counted back from the last one, none before the fifth.

    Args:
        depth: a multiple of 3, at least 6; 18, 24 and 45 were published.
        num_classes: logits per exit.
        input_shape: (height, width, channels).
        period: default depth / 8, rounded: 2, 3 and 6 for the published ones.

    Raises:
        ValueError: a number is out of its range.
    """
    check_count("depth", depth)
    if depth < 6 or depth % 3:
        raise ValueError(f"depth must be a multiple of 3 and at least 6, got {depth}")
    usual = max(1, round(depth / 8))
    period = usual if period is None else period
    return _authors(
        f"msdnet-{depth}" + option("every", period, usual),
        input_shape,
        blocks=(depth // 3,) * 3,
        scales=_CIFAR_SCALES,
        growth=_CIFAR_GROWTH,
        exits=exits_every(period, depth, first=4),
        filters=_CIFAR_FILTERS,
        num_classes=num_classes,
    )


def msdnet32(num_classes: int = 1000, *, input_shape: Shape = (224, 224, 3)) -> AnytimeSpec:
    """MSDNet32 for ILSVRC (paper Section 5): 32 units, exits after units 4, 11, 18, 25 and 32.

    Args:
        num_classes: logits per exit.
        input_shape: (height, width, channels).

    Raises:
        ValueError: a number is out of its range.
    """
    return _imagenet("msdnet32", (6, 6, 10, 10), exits_every(7, 32), num_classes, input_shape)


def msdnet38(num_classes: int = 1000, *, input_shape: Shape = (224, 224, 3)) -> AnytimeSpec:
    """MSDNet38 for ILSVRC (paper Section 5): 38 units, exits after units 10, 17, 24, 31 and 38.

    Args:
        num_classes: logits per exit.
        input_shape: (height, width, channels).

    Raises:
        ValueError: a number is out of its range.
    """
    exits = exits_every(7, 38, first=4)
    return _imagenet("msdnet38", (10, 9, 10, 9), exits, num_classes, input_shape)


def msdnet_original(
    blocks: int = 10,
    num_classes: int = 10,
    *,
    input_shape: Shape = (32, 32, 3),
    base: int = 4,
    step: int = 2,
) -> AnytimeSpec:
    """MSDNet for CIFAR as its own authors published it (Huang et al. 2018).

    The first exit stands after `base` units, each of the others `step` units later. Scales are
    dropped at equal distances; a transition after the first unit with fewer halves the channels,
    rounded down on the finest scale.

    Args:
        blocks: the number of exits; 7 and 10 were published.
        num_classes: logits per exit.
        input_shape: (height, width, channels).
        base: units before the first exit.
        step: units between exits.

    Raises:
        ValueError: a number is out of its range.
    """
    for name, value in {"blocks": blocks, "base": base, "step": step}.items():
        check_count(name, value)
    scales, depth = _CIFAR_SCALES, base + step * (blocks - 1)
    distance = -(-depth // len(scales))
    channels = tuple(16 * scale for scale in scales)
    stem = MultiScaleStem(input_shape[-1], channels)
    units: list[Part] = []
    exits, heads = [], []
    for layer in range(depth):
        live = scales[layer // distance :]
        dropping = len(live) < len(channels)
        unit = _unit(channels, scales, live, _CIFAR_GROWTH)
        units.append(unit)
        channels = _made(unit)
        if dropping:
            factors = scales[len(scales) - len(channels) :]
            kept = tuple(f * (c // f // 2) for f, c in zip(factors, channels, strict=True))
            units.append(MultiScaleTransition(channels, kept))
            channels = kept
        if layer >= base - 1 and (layer - base + 1) % step == 0:
            exits.append(len(units) - 1)
            heads.append(ConvHead(channels[-1], _CIFAR_FILTERS, num_classes))
    name = f"msdnet-original-{blocks}" + option("base", base, 4) + option("step", step, 2)
    return AnytimeSpec(name, input_shape, stem, tuple(units), tuple(exits), tuple(heads))


def _imagenet(
    name: str, blocks: Sequence[int], exits: tuple[int, ...], num_classes: int, input_shape: Shape
) -> AnytimeSpec:
    return _authors(
        name,
        input_shape,
        blocks=blocks,
        scales=_IMAGENET_SCALES,
        growth=_IMAGENET_GROWTH,
        exits=exits,
        filters=None,
        num_classes=num_classes,
        downsample=True,
    )


def _authors(
    name: str,
    input_shape: Shape,
    *,
    blocks: Sequence[int],
    scales: tuple[int, ...],
    growth: int,
    exits: tuple[int, ...],
    filters: int | None,
    num_classes: int,
    downsample: bool = False,
) -> AnytimeSpec:
    """Block i has the scales from i on and begins with the stem or a transition.

    `exits` count the stem as unit 0, so each stands one earlier among the spec's units. A
    transition still has all scales of the block before; the unit after it drops the finest.
    """
    channels = tuple(2 * growth * scale for scale in scales)
    stem = MultiScaleStem(input_shape[-1], channels, downsample)
    units: list[Part] = []
    made = []  # channels of the coarsest map after each unit
    for block, count in enumerate(blocks):
        if block > 0:
            kept = tuple(c // 2 for c in channels)
            units.append(MultiScaleTransition(channels, kept))
            channels = kept
            made.append(channels[-1])
        for _ in range(count - 1):
            unit = _unit(channels, scales, scales[block:], growth)
            units.append(unit)
            channels = _made(unit)
            made.append(channels[-1])
    after = tuple(i - 1 for i in exits)
    heads = tuple(ConvHead(made[i], filters or made[i], num_classes) for i in after)
    return AnytimeSpec(name, input_shape, stem, tuple(units), after, heads)


def _unit(
    channels: tuple[int, ...], scales: tuple[int, ...], live: tuple[int, ...], growth: int
) -> MultiScaleUnit:
    return MultiScaleUnit(
        channels, tuple(growth * scale for scale in live), scales[len(scales) - len(channels) :]
    )


def _made(unit: MultiScaleUnit) -> tuple[int, ...]:
    kept = unit.in_channels[unit.dropped :]
    return tuple(c + growth for c, growth in zip(kept, unit.growth, strict=True))
