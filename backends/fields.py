"""The fields of a state that comes from outside: which arrays there are, and what they may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from loss_balance.schemes.base import UNSEEN, AnyState, Array, Scheme

IDENTITY = "identity"  # the key of scheme and names among a state's arrays
NEW = ("recent", "pending")  # what states written by version 0.1 lack
MOST = np.iinfo(np.int32).max  # of what is counted


def read_fields(
    given: Mapping[str, Any], like: AnyState, count: int, dtype: Any, *, lenient: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the fields that are there, what is wrong with them).

    Args:
        given: anything by name.
        like: a fresh state.
        count: how many losses the fields are of.
        dtype: of the floats of the state that they are for.
        lenient: whether fields may be missing, but for the average, and unknown ones be there.
    """
    optional = set(NEW) | (set(like._fields) - {"average"} if lenient else set())
    problems = [f"missing {n}" for n in like._fields if n not in given and n not in optional]
    known = (*like._fields, IDENTITY)
    problems += [f"unknown {name}" for name in given if name not in known and not lenient]
    arrays = {}
    for name in like._fields:
        if name in given:
            try:
                arrays[name] = np.asarray(given[name])
            except (TypeError, ValueError) as error:  # lists of unlike lengths, a pickle in a file
                problems.append(f"{name} must be an array, got {type(error).__name__}: {error}")
    for name, array in arrays.items():
        fresh, rounded = getattr(like, name), _rounded(array, dtype)
        problem = _problem(array, rounded, fresh, count, any_value=name == "pending")
        problems += [f"{name} {problem}"] if problem else []
        arrays[name] = rounded
    return arrays, problems


def _rounded(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Floats in `dtype`, an infinity where they are beyond it; anything else as it is."""
    with np.errstate(over="ignore"):
        return array.astype(dtype) if array.dtype.kind == "f" else array


def _problem(
    array: np.ndarray, rounded: np.ndarray, fresh: np.ndarray, count: int, *, any_value: bool
) -> str | None:
    """What is wrong with the array that, rounded, is to stand in place of `fresh`."""
    expected = (*fresh.shape[:-1], count) if fresh.shape else ()
    if array.shape != expected:
        return f"has shape {array.shape}, expected {expected}"
    if array.dtype.kind not in "iuf":
        return f"must be finite numbers, got dtype {array.dtype}"
    if fresh.dtype.kind == "i":
        good = (array >= 0) & (array <= MOST) & (array % 1 == 0)
        whole = f"must be at least 0, whole and at most {MOST}, got {array.tolist()}"
        return None if good.all() else whole
    if any_value or np.isfinite(rounded).all():
        return None
    return f"must be finite numbers in {rounded.dtype}, got {array.tolist()}"


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
        "pending": ("counted from 0", lambda x: np.isfinite(x[1]) & (x[1] >= 0.0)),
    }
    values = {name: np.asarray(getattr(state, name)) for name in rules}
    return [
        f"{name} must be {rule}, got {values[name].tolist()}"
        for name, (rule, holds) in rules.items()
        if not np.all(holds(values[name]))
    ]


def placed(array: np.ndarray, fresh: np.ndarray, where: Sequence[int | None]) -> np.ndarray:
    """`array`, its last axis in our order, with fresh values where the state has none."""
    if not fresh.shape:
        return array
    found = fresh.astype(np.result_type(array, fresh))
    for ours, theirs in enumerate(where):
        if theirs is not None:
            found[..., ours] = array[..., theirs]
    return found
