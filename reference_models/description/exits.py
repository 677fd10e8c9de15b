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


def shape_of(found: Any) -> tuple[int | None, ...] | str:
    """The shape of an array or tensor; what is none, in words."""
    shape = getattr(found, "shape", None)
    return f"a {type(found).__name__}" if shape is None else tuple(shape)


def classes_of(output: Any) -> int:
    """The number of classes, of the model's own output.

    Raises:
        ValueError: these are no logits (B, num_classes).
    """
    shape = shape_of(output)
    if isinstance(shape, str) or len(shape) != 2 or shape[-1] is None:
        raise ValueError(f"the model's output must be logits (B, num_classes), got {shape}")
    return shape[-1]


def check_head(name: str, logits: Any, classes: int) -> None:
    """ValueError unless the head of exit `name` gives as many logits as the model."""
    shape = shape_of(logits)
    if isinstance(shape, str) or len(shape) != 2 or shape[-1] != classes:
        raise ValueError(
            f"the head of {name!r} must give logits (B, {classes}) as the model does, got {shape}"
        )


def check_features(name: str, features: Any) -> None:
    """ValueError unless the default head has a meaning for what `name` gives."""
    shape = shape_of(features)
    if isinstance(shape, str) or len(shape) not in (3, 4) or shape[-1] is None:
        raise ValueError(
            "the default head must read maps (B, H, W, C) or tokens (B, N, C), got "
            f"{name!r} of shape {shape}: give it a head of your own"
        )
