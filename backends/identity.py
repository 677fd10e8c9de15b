"""A state that knows whose it is: what is exported, and what of it another balancer may take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from loss_balance.backends.fields import IDENTITY, MOST, impossible, placed, read_fields
from loss_balance.backends.interface import scheme_config
from loss_balance.schemes.base import UNSEEN, AnyState, Scheme
from loss_balance.schemes.fixed import FixedScheme

ROOM = 512  # bytes: the text is filled up with spaces to a multiple of it
KNOWN = {"scheme", "names", "calls", "waiting"}  # TensorFlow's checkpoints have the last


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
    """What `identity` wrote; ValueError if it is something else, or says more than is known here.

    A later version that means something else by a state says so by a further entry.
    """
    whose = _parsed(array)
    if not isinstance(whose, dict) or not _is_identity(whose):
        raise ValueError("identity must be what export_state() wrote, got something else")
    further = sorted(whose.keys() - KNOWN)
    if further:
        raise ValueError(
            f"identity must be of scheme, names and calls, got {further} too: "
            "a later version of loss-balance wrote it"
        )
    return {name: whose[name] for name in ("scheme", "names", "calls")}


def _parsed(array: Any) -> Any:
    """The JSON in these bytes, None if there is none."""
    try:
        numbers = np.asarray(array)
        if numbers.dtype.kind not in "iu" or np.any((numbers < 0) | (numbers > 255)):
            return None
        return json.loads(numbers.astype(np.uint8).tobytes().decode())
    except (TypeError, ValueError, RecursionError):
        return None


def _is_identity(whose: Mapping[str, Any]) -> bool:
    names, calls = whose.get("names", 0), whose.get("calls")
    distinct = names is None or (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
    )
    counted = type(calls) is int and 0 <= calls <= MOST
    return distinct and counted and isinstance(whose.get("scheme"), dict)


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
    dtype: Any = np.float64,
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
        dtype: NumPy's, of the floats of the state that they are for.

    Raises:
        ValueError: no mapping, fields that are missing or unknown, shapes or values that cannot
            be, another scheme or other names; all in one message.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"a state must be arrays by name, got a {type(given).__name__}")
    whose = read_identity(given[IDENTITY]) if IDENTITY in given else None
    theirs = whose["names"] if whose else None
    problems = [] if whose is None else differences(whose["scheme"], scheme, strict=strict)
    where, unmatched = matched(theirs, names, scheme.num_losses, partial=partial)
    problems += unmatched
    same = whose is None or whose["scheme"].get("class") == type(scheme).__name__
    like = fresh_state(scheme)
    count = len(theirs) if theirs else scheme.num_losses
    lenient = not same and not strict
    arrays, wrong = read_fields(given, like, count, dtype, lenient=lenient)
    problems += wrong
    if not same or fixed_weights(scheme) is not None:
        arrays.pop("weights", None)
    if not wrong:
        problems += impossible(like._replace(**arrays), scheme if same else None)
    if problems:
        raise refusal(scheme, problems)
    found = {name: placed(value, getattr(like, name), where) for name, value in arrays.items()}
    average = found.get("average", like.average)
    if not scheme.takes_negative:
        found["average"] = np.where(average <= scheme.floor, UNSEEN, average)
    return like._replace(**found), whose["calls"] if whose else 0


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
    found = [  # a hyperparameter that only we have is newer than the state
        f"{name} was {value!r}, is {ours[name]!r}" if name in ours else f"unknown {name} {value!r}"
        for name, value in theirs.items()
        if name != "num_losses" and (name not in ours or value != ours[name])
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
