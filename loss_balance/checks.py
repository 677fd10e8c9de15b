"""Checks of arguments: each a ValueError with the rule first, then what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def check_count(name: str, value: Any, least: int = 1) -> None:
    """ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_range(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """ValueError unless `value` is a finite number from `low` to `high` (open ends excluded)."""
    number = not isinstance(value, bool) and isinstance(value, Real)
    above = number and (value > low or (value == low and not open_low))
    below = number and value < math.inf and (value < high or (value == high and not open_high))
    if not (above and below):
        left = "(" if open_low else "["
        right = ")" if open_high or high == math.inf else "]"
        ends = f"{left}{low:g}, {high:g}{right}"
        raise ValueError(f"{name} must be a number in {ends}, got {value!r}")


def check_finite(name: str, values: Sequence[Any]) -> None:
    """ValueError unless `values` are finite numbers, one or more."""
    if len(values) == 0:
        raise ValueError(f"{name} must have a value for each exit, got none")
    for value in values:
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"{name} must be finite numbers, got {value!r}")


def check_increasing(name: str, values: Sequence[float]) -> None:
    """ValueError unless `values` are finite, above 0 and each above the one before it."""
    check_finite(name, values)
    for before, value in zip([0, *values], values, strict=False):
        if not value > before:
            got = ", ".join(str(number) for number in values)
            raise ValueError(f"{name} must be above 0 and increase from exit to exit, got {got}")
