"""The paper's network families: numbers in, `AnytimeSpec` out.

>>> get("resann-9-32", num_classes=100).costs()[-1].multiply_adds
501257088
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.published.denseann import (
    denseann,
    denseann169,
    denseann_imagenet,
)
from loss_balance.reference_models.published.msdnet import (
    msdnet,
    msdnet32,
    msdnet38,
    msdnet_original,
)
from loss_balance.reference_models.published.resann import resann, resann_imagenet

__all__ = [
    "FORMS",
    "PUBLISHED",
    "denseann",
    "denseann169",
    "denseann_imagenet",
    "get",
    "msdnet",
    "msdnet32",
    "msdnet38",
    "msdnet_original",
    "resann",
    "resann_imagenet",
]

# How a name is written, its pattern and its family.
FORMS: dict[str, tuple[str, Callable[..., AnytimeSpec]]] = {
    "resann-<n>-<c>[-every-<period>]": (
        r"resann-(?P<n>\d+)-(?P<c>\d+)(?:-every-(?P<period>\d+))?",
        resann,
    ),
    "resann26|50|77|101": (r"resann(?P<depth>26|50|77|101)", resann_imagenet),
    "denseann-<n>-<growth>[-bottleneck-<b>][-reduction-<r>][-every-<period>]": (
        r"denseann-(?P<n>\d+)-(?P<growth>\d+)(?:-bottleneck-(?P<bottleneck>\d+))?"
        r"(?:-reduction-(?P<reduction>\d+(?:\.\d+)?))?(?:-every-(?P<period>\d+))?",
        denseann,
    ),
    "denseann121|169|201|264": (r"denseann(?P<depth>121|169|201|264)", denseann_imagenet),
    "msdnet-<depth>[-every-<period>]": (
        r"msdnet-(?P<depth>\d+)(?:-every-(?P<period>\d+))?",
        msdnet,
    ),
    "msdnet-original-<blocks>[-base-<base>][-step-<step>]": (
        r"msdnet-original-(?P<blocks>\d+)(?:-base-(?P<base>\d+))?(?:-step-(?P<step>\d+))?",
        msdnet_original,
    ),
    "msdnet32": ("msdnet32", msdnet32),
    "msdnet38": ("msdnet38", msdnet38),
}
DEPTHS = ("n", "depth", "blocks")  # the numbers in a name that units are counted by
DEEPEST = 1000  # of those; published networks have 1,001 layers at most
PUBLISHED = (
    *(f"resann-{n}-{c}" for c in (16, 32) for n in (7, 9, 13, 17, 25)),
    "resann-9-64",
    "resann-9-128",
    "resann26",
    "resann50",
    "resann101",
    "denseann-12-16-bottleneck-0-reduction-1.0",
    "denseann-16-16-bottleneck-0-every-3",
    "denseann-16-12-every-3",
    "denseann169",
    "msdnet-18",
    "msdnet-24",
    "msdnet-45",
    "msdnet-original-7",
    "msdnet-original-10",
    "msdnet32",
    "msdnet38",
)  # the networks of the paper and of the code that its authors and MSDNet's published


def get(
    name: str, num_classes: int | None = None, *, input_shape: Shape | None = None
) -> AnytimeSpec:
    """The network called `name`: `resann-9-32` is `resann(9, 32)`.

    Args:
        name: one of the known forms, as in `AnytimeSpec.name`.
        num_classes: logits per exit; default the family's own, 10 or 1000.
        input_shape: (height, width, channels); default the family's own, (32, 32, 3) or
            (224, 224, 3).

    Raises:
        ValueError: the name is of no known form, or its numbers are out of range.
    """
    given = {"num_classes": num_classes, "input_shape": input_shape}
    for pattern, family in FORMS.values():
        match = re.fullmatch(pattern, name)
        if match is not None:
            numbers = {key: _number(key, text) for key, text in match.groupdict().items() if text}
            chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
            return family(**numbers, **chosen)
    raise ValueError(f"a network's name must be like {' or '.join(FORMS)}, got {name!r}")


def _number(key: str, text: str) -> float:
    if key in DEPTHS and (len(text) > len(str(DEEPEST)) or int(text) > DEEPEST):
        raise ValueError(f"{key} must be at most {DEEPEST} in a network's name, got {text[:20]}")
    return float(text) if key == "reduction" else int(text)
