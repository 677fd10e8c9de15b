"""Weight schemes: what weight each of several losses gets in their sum.

A scheme is a frozen dataclass of hyperparameters with two pure functions, `init` and `update`,
over a `State` of arrays. Every function takes the array namespace `xp` (`numpy`, `torch`,
`jax.numpy`, or an object with the few names used here), so that one text of the formula serves
every framework, eager or traced. Hence the house rules in `update`: no branch on a value, no item
assignment, no `float()`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Array = Any  # an array of whatever namespace `xp` is
Namespace = Any  # a module satisfies no Protocol, so this is documented rather than typed

UNSEEN = -1.0  # the average of a loss that had no valid value yet; a real average is never negative


class State(NamedTuple):
    """What a scheme remembers between steps, L losses."""

    average: (
        Array  # shape (L,), running mean of each loss, UNSEEN (-1) before its first valid value
    )
    weights: Array  # shape (L,), the weights to use now
    step: Array  # shape (), int32, number of updates
    skipped: Array  # shape (L,), int32, how often each loss was NaN, infinite or negative


class Scheme(ABC):
    """Interface of all schemes: hyperparameters only, the state is passed in and returned."""

    num_losses: int

    @abstractmethod
    def initial_weights(self) -> tuple[float, ...]:
        """The weights before the first update, one per loss."""

    @abstractmethod
    def update(
        self, state: State, losses: Array, xp: Namespace, present: Array | None = None
    ) -> State:
        """The state after one step.

        Args:
            state: what `init` or the previous `update` returned.
            losses: shape (num_losses,), detached, float32 or wider.
            xp: namespace of the arrays.
            present: shape (num_losses,), bool; False where a loss is absent in this step and its
                entry in `losses` means nothing. None says that all are present.
        """

    def init(self, xp: Namespace, dtype: Any = None) -> State:
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


class FixedScheme(Scheme):
    """A scheme whose weights never change; it still counts bad values in `skipped`."""

    def update(
        self, state: State, losses: Array, xp: Namespace, present: Array | None = None
    ) -> State:
        _, bad = screen(losses, xp, present)
        return state._replace(step=state.step + 1, skipped=xp.add(state.skipped, bad))


@dataclass(frozen=True)
class Constant(FixedScheme):
    """CONST: every weight is 1 (Lee et al. 2015; Xie & Tu 2015; Huang et al. 2017)."""

    num_losses: int

    def __post_init__(self) -> None:
        check_count("num_losses", self.num_losses)

    def initial_weights(self) -> tuple[float, ...]:
        return (1.0,) * self.num_losses


@dataclass(frozen=True)
class Linear(FixedScheme):
    """LINEAR: weights rise evenly from `start` to `stop` (Zamir et al. 2017; paper Section 3).

    A single loss gets `stop`.
    """

    num_losses: int
    start: float = 0.25
    stop: float = 1.0

    def __post_init__(self) -> None:
        check_count("num_losses", self.num_losses)
        check_range("start", self.start, low=0.0)
        check_range("stop", self.stop, low=0.0, open_low=True)

    def initial_weights(self) -> tuple[float, ...]:
        if self.num_losses == 1:
            return (self.stop,)
        slope = (self.stop - self.start) / (self.num_losses - 1)
        return (*(self.start + slope * i for i in range(self.num_losses - 1)), self.stop)


@dataclass(frozen=True)
class HalfEnd(FixedScheme):
    """HALF-END: the last loss has half of the total weight, the others share the rest (Section 3).

    Scaled so that the last weight is 1: the others are 1 / (num_losses - 1).
    """

    num_losses: int

    def __post_init__(self) -> None:
        check_count("num_losses", self.num_losses)

    def initial_weights(self) -> tuple[float, ...]:
        others = self.num_losses - 1
        return (*(1.0 / others for _ in range(others)), 1.0)


@dataclass(frozen=True)
class Single(FixedScheme):
    """Only the loss at `index` counts, from the end if negative.

    With one network per exit this is the paper's OPT, the bar that the other schemes are held to.
    """

    num_losses: int
    index: int = -1

    def __post_init__(self) -> None:
        check_count("num_losses", self.num_losses)
        if not -self.num_losses <= self.index < self.num_losses:
            raise ValueError(
                f"index must be within the {self.num_losses} losses, got {self.index!r}"
            )

    def initial_weights(self) -> tuple[float, ...]:
        chosen = self.index % self.num_losses
        return tuple(1.0 if i == chosen else 0.0 for i in range(self.num_losses))


@dataclass(frozen=True)
class Static(FixedScheme):
    """The given weights, one per loss, used as they are.

    The one scheme whose largest weight need not be 1: hand-tuned weights keep their scale.
    """

    weights: tuple[float, ...]
    num_losses: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = tuple(float(w) for w in self.weights)
        check_count("the number of weights", len(weights))
        if not all(0.0 <= w < math.inf for w in weights) or not any(weights):
            raise ValueError(
                f"weights must be finite, none negative and not all zero, got {weights}"
            )
        object.__setattr__(self, "weights", weights)  # a list would not hash
        object.__setattr__(self, "num_losses", len(weights))

    def initial_weights(self) -> tuple[float, ...]:
        return self.weights


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
