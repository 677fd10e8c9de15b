"""What all balancers share and no framework is needed for: names, order, errors, formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from loss_balance.adaloss import LinearSchedule
from loss_balance.base import AnyState, Array, Scheme

NEGATIVE = "losses must not be negative (AdaLoss divides by their mean), got {}"


def check_names(names: Sequence[str] | None, num_losses: int) -> tuple[str, ...] | None:
    """`names` as a tuple, or None; ValueError unless there is one distinct name per loss."""
    if names is None:
        return None
    names = tuple(names)
    if len(names) != num_losses or len(set(names)) != num_losses:
        raise ValueError(f"names must be {num_losses} distinct strings, got {names}")
    return names


def in_order(losses: Any, names: tuple[str, ...] | None, num_losses: int) -> Any:
    """`losses` as a list in the scheme's order, or unchanged if it is one stacked array.

    Args:
        losses: a sequence of scalars, a mapping from name to scalar, or an array of shape
            (num_losses,). A scalar may be None: absent in this step. That they are scalars is for
            the adapter to check, with `not_scalar`.
        names: the order of a mapping's entries.
        num_losses: how many losses the scheme weighs.

    Raises:
        ValueError: wrong count, wrong shape, unknown or missing names.
    """
    if isinstance(losses, Mapping):
        losses = _by_name(losses, names)
    if isinstance(losses, Sequence):
        return _checked_list(losses, num_losses)
    shape = getattr(losses, "shape", None)
    if shape is None:
        raise ValueError(
            f"losses must be a sequence, a mapping or a stacked array, got {type(losses).__name__}"
        )
    if tuple(shape) != (num_losses,):
        raise ValueError(f"expected losses of shape ({num_losses},), got {tuple(shape)}")
    return losses


def not_scalar(index: int, shape: Sequence[int]) -> ValueError:
    """The error for a loss that was not reduced."""
    return ValueError(
        f"each loss must be a scalar (reduce it first), loss {index} has shape {tuple(shape)}"
    )


def check_mask(shape: Sequence[int], num_losses: int) -> None:
    """ValueError unless a mask has one entry per loss."""
    if tuple(shape) != (num_losses,):
        raise ValueError(f"expected a mask of shape ({num_losses},), got {tuple(shape)}")


def _by_name(losses: Mapping[str, Any], names: tuple[str, ...] | None) -> list[Any]:
    if names is None:
        raise ValueError("a mapping of losses needs Balancer(..., names=[...]) for its order")
    if set(losses) != set(names):
        raise ValueError(
            f"losses must have exactly the names {list(names)}, got {list(losses)} "
            "(a loss that is absent in a step is None)"
        )
    return [losses[name] for name in names]


def _checked_list(losses: Sequence[Any], num_losses: int) -> list[Any]:
    if len(losses) != num_losses:
        raise ValueError(f"expected {num_losses} losses, got {len(losses)}")
    if all(loss is None for loss in losses):
        raise ValueError("at least one loss must be present in a step, all are None")
    return list(losses)


def check_exported(exported: Mapping[str, Array], scheme: Scheme) -> AnyState:
    """A state of NumPy arrays from what some balancer's `export_state()` gave, in any framework.

    Raises:
        ValueError: names that are missing or unknown, shapes or values that cannot be, all in one
            message.
    """
    like = scheme.init(np)
    problems = [f"missing {name}" for name in like._fields if name not in exported]
    problems += [f"unknown {name}" for name in exported if name not in like._fields]
    arrays = {name: np.asarray(exported[name]) for name in like._fields if name in exported}
    for name, array in arrays.items():
        expected = getattr(like, name)
        if array.shape != expected.shape:
            problems.append(f"{name} has shape {array.shape}, expected {expected.shape}")
        elif array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            problems.append(f"{name} must be finite numbers, got {array}")
    if problems:
        raise ValueError(
            f"a state for {scheme.num_losses} losses was expected: {'; '.join(problems)}"
        )
    return type(like)(**arrays)


def weight_metrics(weights: Sequence[float], names: tuple[str, ...] | None) -> dict[str, float]:
    """`{"loss_weight/<name>": weight}`, for any logger; without names the losses are 0, 1, ..."""
    labels = names or tuple(str(i) for i in range(len(weights)))
    return {f"loss_weight/{label}": float(w) for label, w in zip(labels, weights, strict=True)}


def scheme_config(scheme: Scheme) -> dict[str, Any]:
    """`scheme` as plain JSON values, which `scheme_from_config` reads: its class and its fields.

    Raises:
        ValueError: a field is neither a number, a tuple of them nor a `LinearSchedule`.
    """
    return _config(scheme)


def scheme_from_config(config: Mapping[str, Any]) -> Scheme:
    """The scheme that `scheme_config` described.

    A `Scheme` of your own is found by the name of its class once that is imported. Nothing else is
    ever looked up, so a config from a stranger runs no code of theirs.

    Raises:
        ValueError: an unknown class, unknown fields or values out of range.
    """
    scheme = _from_config(config, {kind.__name__: kind for kind in _subclasses(Scheme)})
    assert isinstance(scheme, Scheme)
    return scheme


def _config(value: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"class": type(value).__name__}
    for name in (f.name for f in fields(value) if f.init):
        entry = getattr(value, name)
        if isinstance(entry, LinearSchedule):
            entry = _config(entry)
        elif isinstance(entry, tuple):
            entry = list(entry)
        elif entry is not None and not isinstance(entry, (bool, int, float, str)):
            raise ValueError(
                f"a config holds numbers and LinearSchedule, got {name}={entry!r} "
                f"in {type(value).__name__}"
            )
        config[name] = entry
    return config


def _from_config(config: Mapping[str, Any], known: Mapping[str, type]) -> Any:
    given = dict(config)
    name = given.pop("class", None)
    kind = known.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"expected a config of one of {sorted(known)}, got {name!r}")
    schedules = {LinearSchedule.__name__: LinearSchedule}
    for key, value in given.items():
        if isinstance(value, Mapping):
            given[key] = _from_config(value, schedules)
    try:
        return kind(**given)
    except TypeError as error:  # a field that is not there
        raise ValueError(f"a config that {name} does not take: {error}") from error


def _subclasses(kind: type) -> Iterator[type]:
    child: type
    for child in kind.__subclasses__():
        yield from _subclasses(child)
        if is_dataclass(child):
            yield child
