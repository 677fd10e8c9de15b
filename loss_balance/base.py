"""What every weight scheme is: hyperparameters, a state of arrays, and two pure functions.

A scheme is a frozen dataclass of hyperparameters with two pure functions, `init` and `update`,
over a `State` of arrays. Every function takes the array namespace `xp` (`numpy`, `torch`,
`jax.numpy`, or an object with the few names used here), so that one text of the formula serves
every framework, eager or traced. Hence the house rules in `update`: no branch on a value, no item
assignment, no `float()`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

Array = Any  # an array of whatever namespace `xp` is
Namespace = Any  # a module satisfies no Protocol, so this is documented rather than typed
AnyState = Any  # a State, or a NamedTuple that begins with its fields

UNSEEN = -1.0  # the average of a loss that had no valid value yet; a real average is never negative


class State(NamedTuple):
    """What a scheme remembers between steps, L losses; some have more fields after these."""

    average: Array  # shape (L,), running mean of each loss, UNSEEN before its first valid value
    weights: Array  # shape (L,), the weights to use now
    step: Array  # shape (), int32, number of updates
    skipped: Array  # shape (L,), int32, how often each loss was NaN, infinite or negative


class Scheme(ABC):
    """Interface of all schemes: hyperparameters only, the state is passed in and returned."""

    num_losses: int

    def initial_weights(self) -> tuple[float, ...]:
        """The weights before the first update, one per loss: 1 unless the scheme says otherwise."""
        return (1.0,) * self.num_losses

    @abstractmethod
    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> AnyState:
        """The state after one step.

        Args:
            state: what `init` or the previous `update` returned.
            losses: shape (num_losses,), detached, float32 or wider.
            xp: namespace of the arrays.
            present: shape (num_losses,), bool; False where a loss is absent in this step and its
                entry in `losses` means nothing. None says that all are present.
        """

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        """The state before the first step, in `dtype` (default: the namespace's own float)."""
        weights = xp.asarray(list(self.initial_weights()), dtype=dtype)
        return State(
            average=xp.full_like(weights, UNSEEN),
            weights=weights,
            step=xp.zeros((), dtype=xp.int32),
            skipped=xp.zeros_like(weights, dtype=xp.int32),
        )


def screen(losses: Array, xp: Namespace, present: Array | None) -> tuple[Array, Array]:
    """Separates good from bad values: (`losses` made finite except for NaN, bad).

    `bad`, shape (L,), is True where a present loss is NaN, infinite or negative.
    """
    clipped = xp.clip(losses, 0.0, float(xp.finfo(losses.dtype).max))
    bad = clipped != losses  # NaN differs from itself
    return clipped, bad if present is None else bad & present


def check_count(name: str, value: int) -> None:
    """ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_range(
    name: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """ValueError unless `value` is a finite number from `low` to `high` (open ends excluded)."""
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    above = number and (value > low or (value == low and not open_low))
    below = number and value < math.inf and (value < high or (value == high and not open_high))
    if not (above and below):
        left = "(" if open_low else "["
        right = ")" if open_high or high == math.inf else "]"
        ends = f"{left}{low:g}, {high:g}{right}"
        raise ValueError(f"{name} must be a number in {ends}, got {value!r}")
