"""The ResANNs: numbers in, `AnytimeSpec` out."""

from __future__ import annotations

from loss_balance.checks import check_count
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.parts import ConvStem, ImageStem, LinearHead
from loss_balance.reference_models.description.spec import AnytimeSpec, exits_every, option
from loss_balance.reference_models.description.units import BottleneckUnit, ResidualUnit

# Units per stage, and units per exit, by depth.
_IMAGENET = {
    26: ((2, 2, 2, 2), 2),
    50: ((3, 4, 6, 3), 2),
    77: ((3, 4, 15, 3), 3),  # not published
    101: ((3, 4, 23, 3), 3),
}


def resann(
    n: int,
    c: int,
    num_classes: int = 10,
    *,
    input_shape: Shape = (32, 32, 3),
    period: int | None = None,
) -> AnytimeSpec:
    """ResANN(n, c) for CIFAR and SVHN (paper Section 5 and Appendix C; He et al. 2016).

    Three stages of `n` residual units with c, 2c and 4c channels; the later two halve the sides.
    An exit stands after every `period` units, counted back from the last one.

    Args:
        n: units per stage.
        c: channels of the first stage, even.
        num_classes: logits per exit.
        input_shape: (height, width, channels); both sides divisible by 4.
        period: default 3 for n = 25, as in the paper, otherwise 1.

    Raises:
        ValueError: a number is out of its range.
    """
    check_count("n", n)
    check_count("c", c)
    usual = 3 if n == 25 else 1
    period = usual if period is None else period
    units = []
    in_channels = c
    for i in range(3 * n):
        out_channels = c * 2 ** (i // n)
        units.append(ResidualUnit(in_channels, out_channels, stride=2 if i in (n, 2 * n) else 1))
        in_channels = out_channels
    exits = exits_every(period, 3 * n)
    return AnytimeSpec(
        name=f"resann-{n}-{c}" + option("every", period, usual),
        input_shape=input_shape,
        stem=ConvStem(input_shape[-1], c),
        units=tuple(units),
        exits=exits,
        heads=tuple(LinearHead(units[i].out_channels, num_classes) for i in exits),
    )


def resann_imagenet(
    depth: int, num_classes: int = 1000, *, input_shape: Shape = (224, 224, 3)
) -> AnytimeSpec:
    """ResANN26, 50 or 101 for ILSVRC (paper Section 5 and Appendix C; He et al. 2016).

    Bottleneck units in four stages; an exit after every 2, 2 or 3 of them. 77 is ours, between the
    last two: the costs of 26, 50, 77 and 101 grow by addition, as a linear ensemble's do (Fig. 5b).

    Args:
        depth: 26, 50, 77 or 101.
        num_classes: logits per exit.
        input_shape: (height, width, channels).

    Raises:
        ValueError: another depth, or a number out of its range.
    """
    if depth not in _IMAGENET:
        raise ValueError(f"depth must be one of {', '.join(map(str, _IMAGENET))}, got {depth}")
    blocks, period = _IMAGENET[depth]
    units = []
    in_channels = 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            units.append(BottleneckUnit(in_channels, inner, 4 * inner, stride))
            in_channels = 4 * inner
    exits = exits_every(period, len(units))
    return AnytimeSpec(
        name=f"resann{depth}",
        input_shape=input_shape,
        stem=ImageStem(input_shape[-1], 64),
        units=tuple(units),
        exits=exits,
        heads=tuple(LinearHead(units[i].out_channels, num_classes) for i in exits),
    )
