"""What all balancers share and no framework is needed for: what goes in, names, order, formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from loss_balance.schemes.adaloss import LinearSchedule
from loss_balance.schemes.base import Scheme


def negative(scheme: Scheme, losses: Any) -> ValueError:
    """The error for a negative loss in the first call."""
    name = type(scheme).__name__
    return ValueError(
        f"losses must not be negative ({name} weighs a loss by its inverse), got {losses}"
    )


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
        losses: scalars in any iterable that `sum` takes, a mapping from name to scalar, or an array
            of shape (num_losses,). A scalar may be None, absent in this step, which is what a
            number 0 becomes too: where other losses are tensors it is a placeholder. That they are
            scalars is for the adapter to check, with `check_scalars`.
        names: the order of a mapping's entries.
        num_losses: how many losses the scheme weighs.

    Raises:
        ValueError: wrong count, wrong shape, unknown or missing names.
    """
    if isinstance(losses, list):  # first, for it is what comes at every step
        return _checked_list(losses, num_losses)
    if isinstance(losses, Mapping):
        losses = _by_name(losses, names)
    shape = getattr(losses, "shape", None)
    if shape is None:
        if isinstance(losses, str) or not isinstance(losses, Iterable):
            raise ValueError(
                "losses must be an iterable of scalars, a mapping or a stacked array, "
                f"got {type(losses).__name__}"
            )
        return _checked_list(list(losses), num_losses)
    if tuple(shape) != (num_losses,):
        raise ValueError(f"expected losses of shape ({num_losses},), got {tuple(shape)}")
    return losses


def check_scalars(shapes: Iterable[Sequence[int]]) -> None:
    """ValueError unless all losses, of these shapes, are scalars; one that is absent has ()."""
    for index, shape in enumerate(shapes):
        if len(shape):
            raise ValueError(
                "each loss must be a scalar (reduce it first), loss "
                f"{index} has shape {tuple(shape)}"
            )


def _by_name(losses: Mapping[str, Any], names: tuple[str, ...] | None) -> list[Any]:
    if names is None:
        raise ValueError("a mapping of losses needs Balancer(..., names=[...]) for its order")
    losses = dict(_flat(losses))
    if set(losses) != set(names):
        raise ValueError(
            f"losses must have exactly the names {list(names)}, got {list(losses)} "
            "(a loss that is absent in a step is None)"
        )
    return [losses[name] for name in names]


def _flat(losses: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Name and loss; one within a mapping within a mapping is called "outer/inner"."""
    for name, loss in losses.items():
        if isinstance(loss, Mapping):
            yield from _flat(loss, f"{above}{name}/")
        else:
            yield (f"{above}{name}" if above else name), loss


def _checked_list(losses: list[Any], num_losses: int) -> list[Any]:
    if len(losses) != num_losses:
        raise ValueError(f"expected {num_losses} losses, got {len(losses)}")
    return [None if isinstance(loss, (int, float)) and loss == 0 else loss for loss in losses]


def check_priorities(priorities: Sequence[Any] | None, num_losses: int) -> tuple[float, ...] | None:
    """`priorities` of a balancer as a tuple of floats, or None.

    Raises:
        ValueError: they are not one finite number of at least 0 per loss.
    """
    if priorities is None:
        return None
    given: tuple[Any, ...] = tuple(priorities)
    good = all(isinstance(p, Real) and 0.0 <= float(p) < math.inf for p in given)
    if len(given) != num_losses or not good:
        raise ValueError(
            f"priorities must be {num_losses} finite numbers of at least 0, got {given}"
        )
    return tuple(float(p) for p in given)


def check_vector(name: str, shape: Sequence[int], num_losses: int) -> None:
    """ValueError unless what is called `name` has one entry per loss."""
    if tuple(shape) != (num_losses,):
        raise ValueError(f"expected {name} of shape ({num_losses},), got {tuple(shape)}")


def check_equilibrium(equilibrium: Any, call: Any = None) -> None:
    """ValueError where the trunk's gradient is made before `priorities` of the `call` are known."""
    if equilibrium and call is not None:
        raise ValueError(
            "in equilibrium priorities must be the balancer's own, for the forks use them before "
            f"the call, got {call}"
        )


def check_observed(scheme: Scheme, norms: Any, *, equilibrium: bool) -> None:
    """ValueError unless there are norms of gradients exactly where the scheme follows those."""
    wanted = scheme.observes == "gradients"
    name = type(scheme).__name__
    if wanted and not equilibrium:
        raise ValueError(f"{name} needs a balancer in equilibrium, for its forks see the gradients")
    if wanted and norms is None:
        raise ValueError(
            f"{name} needs norms=, the gradient of the probe that the forks of the last step were "
            "given (zeros in the first), got none"
        )
    if not wanted and norms is not None:
        raise ValueError(f"norms are for schemes that follow gradients, {name} follows losses")


def exit_index(
    index: Any, names: Sequence[str] | None, num_losses: int, *, equilibrium: bool = True
) -> int:
    """Which exit a fork is for, as a number from 0; a name stands for its place.

    Raises:
        ValueError: there is no such exit, or the balancer does not work in equilibrium.
    """
    if not equilibrium:
        raise ValueError(
            "fork needs a balancer in equilibrium, Balancer(..., equilibrium=True): a weighted sum "
            "of the losses would weigh the trunk's gradients twice"
        )
    if names is not None and index in names:
        return tuple(names).index(index)
    whole = isinstance(index, Integral) and not isinstance(index, bool)
    if not whole or not 0 <= int(index) < num_losses:
        known = f" or one of {list(names)}" if names is not None else ""
        raise ValueError(
            f"a fork must be of an exit from 0 to {num_losses - 1}{known}, got {index!r}"
        )
    return int(index)


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
