"""A state that knows whose it is: what is exported, and what of it another balancer may take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from loss_balance.backends.interface import scheme_config
from loss_balance.schemes.base import UNSEEN, AnyState, Array, Scheme
from loss_balance.schemes.fixed import FixedScheme

IDENTITY = "identity"  # the key of scheme and names among a state's arrays
ROOM = 512  # bytes: the text is filled up with spaces to a multiple of it
NEW = ("recent", "pending")  # what states written by version 0.1 lack


def exported(
    state: AnyState, scheme: Scheme | None, names: Sequence[str] | None, calls: int = 0
) -> dict[str, np.ndarray]:
    """The fields of `state` and, if the scheme is given, whose they are."""
    found = {name: np.array(value) for name, value in state._asdict().items()}
    if scheme is not None:
        found[IDENTITY] = identity(scheme, names, calls)
    return found


def identity(scheme: Scheme, names: Sequence[str] | None, calls: int = 0) -> np.ndarray:
    """Scheme, names and calls since the last update as JSON in bytes, dtype uint8.

    Bytes, since every format of checkpoints holds them.
    """
    whose = {
        "scheme": described(scheme),
        "names": None if names is None else list(names),
        "calls": calls,
    }
    text = json.dumps(whose).encode()
    text = text.ljust(-(-len(text) // ROOM) * ROOM)  # of one length, or checkpoints would not match
    return np.frombuffer(text, np.uint8).copy()


def described(scheme: Scheme) -> dict[str, Any]:
    """`scheme_config`, or as near to it as a scheme gets that JSON cannot hold."""
    try:
        return scheme_config(scheme)
    except ValueError:
        found: dict[str, Any] = {"class": type(scheme).__name__}
        for field in fields(scheme):  # type: ignore[arg-type]  # schemes are dataclasses
            value = getattr(scheme, field.name)
            plain = isinstance(value, (bool, int, float, str, type(None)))
            found[field.name] = value if plain else getattr(value, "__qualname__", repr(value))
        return found


def read_identity(array: Any) -> dict[str, Any]:
    """What `identity` wrote; ValueError if it is something else."""
    try:
        whose = json.loads(np.asarray(array, np.uint8).tobytes().decode())
        scheme, names, calls = whose["scheme"], whose["names"], whose["calls"]
        good = isinstance(scheme, dict) and isinstance(calls, int) and calls >= 0
        good = good and (names is None or all(isinstance(name, str) for name in names))
    except (ValueError, TypeError, KeyError):
        good = False
    if not good:
        raise ValueError("identity must be what export_state() wrote, got something else")
    return {"scheme": scheme, "names": names, "calls": calls}


def fixed_weights(scheme: Scheme) -> tuple[float, ...] | None:
    """The weights of a fixed scheme, which no state changes; None for any other."""
    return scheme.initial_weights() if isinstance(scheme, FixedScheme) else None


def fresh_state(scheme: Scheme) -> AnyState:
    """The state before the first step, NumPy, float64."""
    return scheme.init(np, np.float64)


def adopted(
    given: Mapping[str, Any],
    scheme: Scheme,
    names: tuple[str, ...] | None,
    *,
    strict: bool = True,
    partial: bool = False,
) -> tuple[AnyState, int]:
    """(a state of NumPy arrays from what some balancer exported, calls since its last update).

    Losses are matched by name where both sides have names. The weights of a fixed scheme are
    configuration and come from `scheme`. A state without identity, as version 0.1 wrote them, is
    taken at its word.

    Args:
        given: arrays by name, as `exported` gave them in any framework.
        scheme: what is to go on with them.
        names: of its losses.
        strict: False goes on although the scheme or its hyperparameters are others; of another
            class of scheme only what both have is taken, and not the weights.
        partial: True takes the losses that have a name in both, the others begin fresh.

    Raises:
        ValueError: fields that are missing or unknown, shapes or values that cannot be, another
            scheme or other names; all in one message.
    """
    whose = read_identity(given[IDENTITY]) if IDENTITY in given else None
    theirs = whose["names"] if whose else None
    problems = [] if whose is None else differences(whose["scheme"], scheme, strict=strict)
    where, unmatched = matched(theirs, names, scheme.num_losses, partial=partial)
    problems += unmatched
    same = whose is None or whose["scheme"].get("class") == type(scheme).__name__
    like = fresh_state(scheme)
    count = len(theirs) if theirs else scheme.num_losses
    arrays, wrong = _arrays(given, like, count, lenient=not same and not strict)
    problems += wrong
    if not same or fixed_weights(scheme) is not None:
        arrays.pop("weights", None)
    if not wrong:
        problems += impossible(like._replace(**arrays), scheme if same else None)
    if problems:
        raise refusal(scheme, problems)
    placed = {name: _placed(value, getattr(like, name), where) for name, value in arrays.items()}
    average = placed.get("average", like.average)
    if not scheme.takes_negative:
        placed["average"] = np.where(average <= scheme.floor, UNSEEN, average)
    return like._replace(**placed), whose["calls"] if whose else 0


def refusal(scheme: Scheme, problems: Sequence[str]) -> ValueError:
    """The error for a state that `scheme` cannot go on with."""
    expected = f"a state for {scheme.num_losses} losses of {type(scheme).__name__} was expected"
    return ValueError(f"{expected}: {'; '.join(problems)}")


def differences(theirs: Mapping[str, Any], scheme: Scheme, *, strict: bool) -> list[str]:
    """What a state's scheme and `scheme` do not share, one text each; none unless `strict`."""
    ours = json.loads(json.dumps(described(scheme)))
    if not strict:
        return []
    if theirs.get("class") != ours["class"]:
        return [f"it is of {theirs.get('class')} (strict=False takes what both schemes have)"]
    found = [
        f"{name} was {theirs.get(name)!r}, is {ours.get(name)!r}"
        for name in {**ours, **theirs}
        if theirs.get(name, ours.get(name)) != ours.get(name, theirs.get(name))
        and name != "num_losses"
    ]
    return [f"{text} (strict=False goes on all the same)" for text in found]


def matched(
    theirs: Sequence[str] | None,
    names: Sequence[str] | None,
    count: int,
    *,
    partial: bool,
) -> tuple[list[int | None], list[str]]:
    """(for each loss where it stands in the state, None if it does not; what is wrong)."""
    if theirs is None or names is None:
        if theirs is not None and len(theirs) != count:
            return [], [f"it is of {len(theirs)} losses {list(theirs)}"]
        return list(range(count)), []
    where = [theirs.index(name) if name in theirs else None for name in names]
    if set(theirs) == set(names) or partial:
        return where, []
    return where, [
        f"its losses are {list(theirs)}, expected {list(names)} (partial=True takes those in both)"
    ]


def _arrays(
    given: Mapping[str, Any], like: AnyState, count: int, *, lenient: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the fields that are there, what is wrong with them)."""
    arrays = {name: np.asarray(given[name]) for name in like._fields if name in given}
    optional = set(NEW) | (set(like._fields) - {"average"} if lenient else set())
    problems = [f"missing {n}" for n in like._fields if n not in given and n not in optional]
    known = (*like._fields, IDENTITY)
    problems += [f"unknown {name}" for name in given if name not in known and not lenient]
    for name, array in arrays.items():
        fresh = getattr(like, name)
        expected = (*fresh.shape[:-1], count) if fresh.shape else ()
        if array.shape != expected:
            problems.append(f"{name} has shape {array.shape}, expected {expected}")
        elif array.dtype.kind not in "iuf" or not (name == "pending" or np.isfinite(array).all()):
            problems.append(f"{name} must be finite numbers, got {array}")
    return arrays, problems


def impossible(state: AnyState, scheme: Scheme | None) -> list[str]:
    """What in a state of NumPy arrays cannot be, whatever happened to it, one text each."""
    largest = math.inf if scheme is None else scheme.largest_weight() * (1.0 + 1e-6)
    negative = scheme is not None and scheme.takes_negative
    rules: dict[str, tuple[str, Callable[[Array], Array]]] = {
        "average": (  # between UNSEEN and 0: a moving average of averages, some not yet seen
            f"finite and not negative, or {UNSEEN:g}",
            lambda x: np.isfinite(x) & (negative | (x >= UNSEEN)),
        ),
        "weights": (
            f"from 0 to {largest:.6g} and not all 0",  # as memory is that nobody wrote to
            lambda x: (x >= 0.0) & (x <= largest) & np.any(x != 0.0),
        ),
        "step": ("at least 0", lambda x: x >= 0),
        "skipped": ("at least 0", lambda x: x >= 0),
        "recent": ("finite and not negative", lambda x: np.isfinite(x) & (x >= 0.0)),
        "pending": ("counted from 0", lambda x: x[1] >= 0.0),
    }
    values = {name: np.asarray(getattr(state, name)) for name in rules}
    return [
        f"{name} must be {rule}, got {values[name].tolist()}"
        for name, (rule, holds) in rules.items()
        if not np.all(holds(values[name]))
    ]


def _placed(array: np.ndarray, fresh: np.ndarray, where: Sequence[int | None]) -> np.ndarray:
    """`array`, its last axis in our order, with fresh values where the state has none."""
    if not fresh.shape:
        return array
    placed = fresh.astype(np.result_type(array, fresh))
    for ours, theirs in enumerate(where):
        if theirs is not None:
            placed[..., ours] = array[..., theirs]
    return placed
