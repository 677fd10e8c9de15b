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
from dataclasses import fields
from numbers import Real
from typing import Any, ClassVar, Literal, NamedTuple

Array = Any  # an array of whatever namespace `xp` is
Namespace = Any  # a module satisfies no Protocol, so this is documented rather than typed
AnyState = Any  # a State, or a NamedTuple that begins with its fields

UNSEEN = -1.0  # the average of a loss that had no valid value yet; a real average is above floor
HALF_LIFE = 50  # updates, of `State.recent`: a burst of bad values counts as in a window of 100


class State(NamedTuple):
    """What a scheme remembers between steps, L losses; some have more fields after these."""

    average: Array  # shape (L,), running mean of each loss, UNSEEN before its first valid value
    weights: Array  # shape (L,), the weights to use now
    step: Array  # shape (), int32, number of updates
    skipped: Array  # shape (L,), int32, how often each loss was bad: NaN, infinite, negative
    recent: Array  # shape (L,), leaky count of bad values, see `recently_bad`
    pending: Array  # shape (2, L), sums and counts of micro-batches not yet counted, see `clock`


class Scheme(ABC):
    """Interface of all schemes: hyperparameters only, the state is passed in and returned.

    Attributes:
        num_losses: L, the number of losses.
        floor: a loss at or below it (in absolute value) is off in that step, as if absent.
        takes_negative: whether a negative loss is a value like any other. Schemes that divide by
            losses say no: to them it is bad, as NaN is.
        averages: whether `State.average` means anything.
        observes: what `update` is given as losses: them, or the norms of their gradients where each
            exit branches off the trunk.
    """

    num_losses: int
    floor: float = 0.0
    takes_negative: ClassVar[bool] = False
    averages: ClassVar[bool] = True
    observes: ClassVar[Literal["losses", "gradients"]] = "losses"

    def __post_init__(self) -> None:
        """Turns NumPy's numbers into Python's, so that a scheme prints, hashes and stores as such.

        Subclasses call it first, then check their hyperparameters.
        """
        for field in fields(self):  # type: ignore[arg-type]  # schemes are dataclasses
            value = getattr(self, field.name, None)
            if isinstance(value, Real) and hasattr(value, "item"):
                object.__setattr__(self, field.name, value.item())

    def initial_weights(self) -> tuple[float, ...]:
        """The weights before the first update, one per loss: 1 unless the scheme says otherwise."""
        return (1.0,) * self.num_losses

    def largest_weight(self) -> float:
        """No weight of this scheme is ever above it."""
        return math.inf

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

    def has_seen_all(self, average: Array, losses: Array, xp: Namespace) -> bool:  # noqa: ARG002
        """Whether every loss has been seen once these have come; arrays on the host.

        Says what a namespace may know, see `knows_all_seen`; False where nobody asks.
        """
        return False

    def state_type(self) -> Any:
        """The NamedTuple that this scheme's states are."""
        return State

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        """The state before the first step, in `dtype` (default: the namespace's own float)."""
        weights = xp.asarray(list(self.initial_weights()), dtype=dtype)
        zeros = xp.zeros_like(weights)
        return State(
            average=xp.full_like(weights, UNSEEN),
            weights=weights,
            step=xp.zeros((), dtype=xp.int32),
            skipped=xp.zeros_like(weights, dtype=xp.int32),
            recent=zeros,
            pending=xp.stack((zeros, zeros)),
        )

    def reset(self, state: AnyState, which: Array, xp: Namespace) -> AnyState:
        """`state` with the losses begun anew where `which`, shape (num_losses,), is True.

        The number of updates stays: schedules go on.
        """
        fresh = self.init(xp, state.weights.dtype)
        pairs = zip(fresh, state, strict=True)
        mixed = (xp.where(which, new, old) if len(old.shape) else old for new, old in pairs)
        return type(state)(*mixed)


def knows_all_seen(xp: Namespace) -> bool:
    """Whether whoever made this namespace knows that each average is that of a value.

    That saves the kernels which tell the two apart; the results are the same to the last bit.
    """
    return getattr(xp, "all_seen", False)


def screen(
    losses: Array, xp: Namespace, present: Array | None, floor: float, *, negative: bool = False
) -> tuple[Array, Array, Array]:
    """Separates values from what is none: (`losses` made finite, live, bad), shape (L,) each.

    `bad` is True where a present loss is NaN or infinite, or negative unless `negative` says that
    this is a value. `live` is True where it is neither bad nor absent nor off: a loss at or below
    `floor` (a coefficient at 0, a placeholder, a hinge at rest) is off, as if absent.
    """
    if negative:
        values, bad = screen_finite(losses, xp, present)
        live = xp.abs(values) > floor
    else:
        values = xp.nan_to_num(losses, nan=-1.0, posinf=-1.0, neginf=-1.0)
        bad, live = values < 0.0, values > floor
        bad = bad if present is None else bad & present
    return values, live if present is None else live & present, bad


def screen_finite(losses: Array, xp: Namespace, present: Array | None) -> tuple[Array, Array]:
    """(`losses` made finite, where a present one was NaN or infinite), shape (L,) each."""
    values = xp.nan_to_num(losses, nan=0.0, posinf=0.0, neginf=0.0)
    bad = values != losses  # NaN differs from 0 too
    return values, bad if present is None else bad & present


def counted(state: AnyState, bad: Array, xp: Namespace) -> dict[str, Array]:
    """The fields of `state` that count, one update later: step, skipped and recent.

    To be called last in an update: a namespace that has a `count` may count in place.
    """
    step, skipped = count(state.step, state.skipped, bad, xp)
    return {"step": step, "skipped": skipped, "recent": leak(state.recent, bad, xp)}


def count(step: Array, skipped: Array, bad: Array, xp: Namespace) -> tuple[Array, Array]:
    """Both counters of an update, one later."""
    if hasattr(xp, "count"):
        step, skipped = xp.count(step, skipped, bad)
        return step, skipped
    return xp.add(step, 1), xp.add(skipped, bad)


def leak(level: Array, more: Array, xp: Namespace) -> Array:
    """`level`, halved in HALF_LIFE updates, and `more` on top: one kernel in torch."""
    keep = 0.5 ** (1 / HALF_LIFE)
    if hasattr(xp, "lerp"):  # torch
        return xp.add(more, level, alpha=keep)
    return xp.add(keep * level, more)


def recently_bad(recent: Array) -> Array:
    """Which losses were bad in more than half of the last 100 updates, shape (L,), bool.

    The window is leaky, and says what one of 100 would of a burst: 51 bad updates after good ones
    are more than half, as are bad ones with 49 good ones after them.
    """
    return recent * (1.0 - 0.5 ** (1 / HALF_LIFE)) > 0.5


def over_largest(weights: Array, xp: Namespace) -> Array:
    """`weights` divided by their largest, as they are where all are 0."""
    largest = xp.max(weights)
    return weights / xp.where(largest > 0.0, largest, 1.0)


def affine(slope: float, x: Array, offset: float, xp: Namespace) -> Array:
    """`slope * x + offset`, of numbers: one kernel in torch."""
    if hasattr(xp, "rsub"):  # torch
        return xp.rsub(x, offset, alpha=-slope)
    return slope * x + offset


def lerp(start: Array, end: Array, weight: Any, xp: Namespace) -> Array:
    """`start + weight * (end - start)`: one kernel in torch, which has it; numpy and jax do not."""
    if hasattr(xp, "lerp") and start.dtype == end.dtype:
        return xp.lerp(start, end, weight)
    return start + weight * (end - start)
