"""A network's description as numbers and strings, for a run's config.json and a .keras file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loss_balance.reference_models.description.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)
from loss_balance.reference_models.description.own import (
    NetSpec,
    OwnSpec,
    from_own_config,
    own_config,
)
from loss_balance.reference_models.description.parts import (
    ConvHead,
    ConvStem,
    Head,
    ImageStem,
    LinearHead,
    Part,
)
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import (
    BottleneckUnit,
    DenseTransition,
    DenseUnit,
    ResidualUnit,
)

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ConvStem,
        ImageStem,
        MultiScaleStem,
        ResidualUnit,
        BottleneckUnit,
        DenseUnit,
        DenseTransition,
        MultiScaleUnit,
        MultiScaleTransition,
        LinearHead,
        ConvHead,
    )
}


def to_config(spec: NetSpec) -> dict[str, Any]:
    """A dict that JSON can hold and `from_config` takes."""
    if isinstance(spec, OwnSpec):
        return own_config(spec)
    return {
        "name": spec.name,
        "input_shape": list(spec.input_shape),
        "stem": _part_config(spec.stem),
        "units": [_part_config(unit) for unit in spec.units],
        "exits": list(spec.exits),
        "heads": [_part_config(head) for head in spec.heads],
    }


def from_config(config: Mapping[str, Any]) -> NetSpec:
    """The inverse of `to_config`, also after JSON made lists of tuples.

    Raises:
        ValueError: something is missing, unknown, or no network can be built of it.
    """
    try:
        if "function" in config:
            return from_own_config(config)
        return AnytimeSpec(
            config["name"],
            tuple(config["input_shape"]),
            _part(config["stem"]),
            tuple(_part(unit) for unit in config["units"]),
            tuple(config["exits"]),
            tuple(_part(head) for head in config["heads"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"a network's config must be as to_config made it; this does not fit: {error}"
        ) from error


def _part_config(part: Part | Head) -> dict[str, Any]:
    fields = asdict(part)  # type: ignore[call-overload]
    return {"kind": type(part).__name__} | {
        name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()
    }


def _part(config: Mapping[str, Any]) -> Any:
    fields = dict(config)
    return KINDS[fields.pop("kind")](**fields)
