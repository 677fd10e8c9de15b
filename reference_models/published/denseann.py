"""The DenseANNs: numbers in, `AnytimeSpec` out."""

from __future__ import annotations

from collections.abc import Sequence

from loss_balance.checks import check_count, check_range
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.parts import ConvStem, ImageStem, LinearHead, Part
from loss_balance.reference_models.description.spec import AnytimeSpec, exits_every, option
from loss_balance.reference_models.description.units import DenseTransition, DenseUnit

# Dense units per block, by depth (Huang et al. 2017, Table 1).
_IMAGENET = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


def denseann(
    n: int,
    growth: int,
    num_classes: int = 10,
    *,
    input_shape: Shape = (32, 32, 3),
    bottleneck: int = 4,
    reduction: float = 0.5,
    period: int = 1,
) -> AnytimeSpec:
    """DenseANN for CIFAR: three dense blocks of `n` units (Huang et al. 2017).

    The defaults are DenseNet-BC's; the authors' own are `bottleneck=0, reduction=1.0`. An exit
    stands after every `period` dense units, counted back from the last one.

    Args:
        n: units per block.
        growth: channels that each unit adds; the stem makes twice as many.
        num_classes: logits per exit.
        input_shape: (height, width, channels); both sides divisible by 4.
        bottleneck: each unit's 1x1 convolution makes so many times `growth`; 0 for none.
        reduction: share of the channels that a transition keeps, rounded down.
        period: dense units per exit.

    Raises:
        ValueError: a number is out of its range.
    """
    check_count("n", n)
    check_count("growth", growth)
    if bottleneck:
        check_count("bottleneck", bottleneck)
    check_range("reduction", reduction, 0.0, 1.0, open_low=True)
    reduction = float(reduction)  # one way to write it in the name
    options = (
        option("bottleneck", bottleneck, 4)
        + option("reduction", reduction, 0.5)
        + option("every", period, 1)
    )
    stem = ConvStem(input_shape[-1], 2 * growth)
    name = f"denseann-{n}-{growth}{options}"
    return _denseann(
        name, input_shape, stem, (n,) * 3, growth, bottleneck, reduction, period, num_classes
    )


def denseann_imagenet(
    depth: int, num_classes: int = 1000, *, input_shape: Shape = (224, 224, 3)
) -> AnytimeSpec:
    """DenseNet-121, 169, 201 or 264 for ILSVRC with an exit after every 14 dense units.

    The paper (Section 5) has the one of 169; cut at the last exit they are the ordinary DenseNets.

    Args:
        depth: 121, 169, 201 or 264.
        num_classes: logits per exit.
        input_shape: (height, width, channels); both sides divisible by 32.

    Raises:
        ValueError: another depth, or a number out of its range.
    """
    if depth not in _IMAGENET:
        raise ValueError(f"depth must be one of {', '.join(map(str, _IMAGENET))}, got {depth}")
    stem = ImageStem(input_shape[-1], 64)
    return _denseann(
        f"denseann{depth}", input_shape, stem, _IMAGENET[depth], 32, 4, 0.5, 14, num_classes
    )


def denseann169(num_classes: int = 1000, *, input_shape: Shape = (224, 224, 3)) -> AnytimeSpec:
    """DenseANN169 for ILSVRC: DenseNet-169 with an exit after every 14 of its 82 dense units.

    Args:
        num_classes: logits per exit.
        input_shape: (height, width, channels); both sides divisible by 32.

    Raises:
        ValueError: a number is out of its range.
    """
    return denseann_imagenet(169, num_classes, input_shape=input_shape)


def _denseann(
    name: str,
    input_shape: Shape,
    stem: ConvStem | ImageStem,
    blocks: Sequence[int],
    growth: int,
    bottleneck: int,
    reduction: float,
    period: int,
    num_classes: int,
) -> AnytimeSpec:
    """Exits are counted over the dense units alone; a transition belongs to what follows it."""
    units: list[Part] = []
    exits, heads = [], []
    channels = stem.out_channels
    wanted = exits_every(period, sum(blocks))
    layer = 0
    for block, count in enumerate(blocks):
        if block > 0:
            kept = int(channels * reduction)
            units.append(DenseTransition(channels, kept))
            channels = kept
        for _ in range(count):
            units.append(DenseUnit(channels, growth, bottleneck * growth or None))
            channels += growth
            if layer in wanted:
                exits.append(len(units) - 1)
                heads.append(LinearHead(channels, num_classes))
            layer += 1
    return AnytimeSpec(name, input_shape, stem, tuple(units), tuple(exits), tuple(heads))
