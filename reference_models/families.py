"""The paper's network families: numbers in, `AnytimeSpec` out.

>>> get("resann-9-32", num_classes=100).costs()[-1].multiply_adds
501257088
"""

from __future__ import annotations

import re

from loss_balance.base import check_count
from loss_balance.reference_models.parts import ConvStem, ResidualUnit, Shape
from loss_balance.reference_models.spec import AnytimeSpec

_RESANN = re.compile(r"resann-(\d+)-(\d+)(?:-every-(\d+))?")
_FORMS = ("resann-<n>-<c>", "resann-<n>-<c>-every-<period>")


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
    if period is None:
        period = usual
    check_count("period", period)
    units = []
    in_channels = c
    for i in range(3 * n):
        out_channels = c * 2 ** (i // n)
        units.append(ResidualUnit(in_channels, out_channels, stride=2 if i in (n, 2 * n) else 1))
        in_channels = out_channels
    return AnytimeSpec(
        name=f"resann-{n}-{c}" + (f"-every-{period}" if period != usual else ""),
        input_shape=input_shape,
        stem=ConvStem(input_shape[-1], c),
        units=tuple(units),
        exits=tuple(range((3 * n - 1) % period, 3 * n, period)),
        num_classes=num_classes,
    )


def get(name: str, num_classes: int = 10, *, input_shape: Shape = (32, 32, 3)) -> AnytimeSpec:
    """The network called `name`: `resann-9-32` is `resann(9, 32)`.

    Args:
        name: one of the known forms, as in `AnytimeSpec.name`.
        num_classes: logits per exit.
        input_shape: (height, width, channels).

    Raises:
        ValueError: the name is of no known form, or its numbers are out of range.
    """
    match = _RESANN.fullmatch(name)
    if match is None:
        raise ValueError(f"a network's name must be like {' or '.join(_FORMS)}, got {name!r}")
    n, c = int(match[1]), int(match[2])
    period = int(match[3]) if match[3] else None
    return resann(n, c, num_classes, input_shape=input_shape, period=period)
