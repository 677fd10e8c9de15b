"""Early exits on a network of the user's own: what may be asked for, in every framework alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

OUTPUT = "output"  # what the last exit is called, the network's own output


def named(exits: Any) -> dict[str, Any]:
    """Name of each exit's layer to its head, None for the default one.

    Args:
        exits: a mapping, or names alone.

    Raises:
        ValueError: it is neither, it is empty, a name comes twice or is "output".
    """
    if isinstance(exits, (str, bytes)) or not isinstance(exits, (Mapping, Sequence)):
        raise ValueError(
            f"exits must be a mapping from names to heads, or a sequence of names, got {exits!r}"
        )
    names = list(exits)
    if not names:
        raise ValueError("exits must name a layer or more before the output, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"exits must name each layer once, got {names}")
    if OUTPUT in names:
        raise ValueError(f"exits must be before the output, which always is the last, got {names}")
    return dict(exits) if isinstance(exits, Mapping) else dict.fromkeys(names)


def check_known(names: Sequence[Any], known: Collection[Any], what: str = "layers") -> None:
    """ValueError with a few close ones unless all names are of the model's `what`."""
    for name in names:
        if name not in known:
            words = [str(each) for each in known]
            close = get_close_matches(str(name), words, cutoff=0.4) or words[:3]
            raise ValueError(
                f"exits must be names of the model's {what}, got {name!r}; close to it: "
                f"{', '.join(close)}"
            )


def check_order(names: Sequence[Any], places: Mapping[Any, int]) -> None:
    """ValueError unless the names' places increase."""
    for before, after in pairwise(names):
        if places[after] <= places[before]:
            raise out_of_order(before, after)


def out_of_order(before: Any, after: Any) -> ValueError:
    """What is raised where `after` is computed no later than `before`."""
    return ValueError(f"exits must be in order of computation, got {after!r} after {before!r}")


def classes_of(shape: Sequence[int | None] | Any) -> int:
    """The number of classes, of the shape that the model's own output has.

    Raises:
        ValueError: these are no logits (B, num_classes); anything but one array has no shape.
    """
    if not isinstance(shape, Sequence) or len(shape) != 2 or not isinstance(shape[-1], int):
        got = tuple(shape) if isinstance(shape, Sequence) else shape
        raise ValueError(f"the model's output must be logits (B, num_classes), got {got}")
    return shape[-1]


def check_head(name: str, shape: Sequence[int | None] | Any, classes: int) -> None:
    """ValueError unless the head of exit `name` gives as many logits as the model."""
    got = tuple(shape) if isinstance(shape, Sequence) else shape
    if not isinstance(got, tuple) or len(got) != 2 or got[-1] != classes:
        raise ValueError(
            f"the head of {name!r} must give logits (B, {classes}) as the model does, got {got}"
        )


def check_features(name: str, shape: Sequence[int | None] | Any) -> None:
    """ValueError unless the default head has a meaning for what `name` gives."""
    got = tuple(shape) if isinstance(shape, Sequence) else shape
    if not isinstance(got, tuple) or len(got) not in (2, 3) or got[-1] is None:
        raise ValueError(
            "the default head must read maps (B, H, W, C) or tokens (B, N, C), got "
            f"{name!r} of shape {got} without the batch: give it a head of your own"
        )
