"""Schemes whose weights follow from a running mean of each loss, some mixed with constants."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

from loss_balance.checks import check_count, check_range
from loss_balance.schemes.base import (
    AnyState,
    Array,
    Namespace,
    Scheme,
    State,
    affine,
    counted,
    knows_all_seen,
    lerp,
    screen,
)

_NARROW = 1e-10  # a dtype with a larger epsilon is float32
Schedule = Callable[..., Array]  # (step, xp, dtype) or (step) -> number, shape ()


class WarmState(NamedTuple):
    """`State`, and how many values each average has seen."""

    average: Array
    weights: Array
    step: Array
    skipped: Array
    recent: Array
    pending: Array
    count: Array  # shape (L,), values so far, up to `warmup`


class AveragingScheme(Scheme):
    """A scheme whose weights follow from a running mean of each loss, with `decay`.

    Attributes:
        decay: of the running mean, in [0, 1).
        clip: a loss enters its mean as at most so many times that mean, None for as it is.
        warmup: the mean of the first so many values is a plain one.
    """

    decay: float
    clip: float | None = None
    warmup: int = 0

    @abstractmethod
    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:
        """The weights for these averages, both shape (L,); `step` updates came before this one.

        The average of a loss not seen yet is the largest number there is, so that it is no minimum;
        what is given for it is never used.
        """

    def weigh_moved(
        self,
        moved: dict[str, Array],  # noqa: ARG002
        average: Array,
        step: Array,
        xp: Namespace,
    ) -> Array:
        """`weigh`, for a scheme that looks at other fields of its state too, `moved` already."""
        return self.weigh(average, step, xp)

    def counts(self) -> bool:
        """Whether the state has the number of values behind each average."""
        return self.warmup > 1  # the first value starts it in any case

    def lowest(self, dtype: Any, xp: Namespace) -> float:
        """Averages are above it: `floor`, but no less than has an inverse in that dtype."""
        return max(self.floor, float(xp.finfo(dtype).tiny))

    def has_seen_all(self, average: Array, losses: Array, xp: Namespace) -> bool:
        low = self.lowest(average.dtype, xp)
        return bool(xp.all((average > low) | ((losses > low) & xp.isfinite(losses))))

    def state_type(self) -> Any:
        return WarmState if self.counts() else State

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        state = super().init(xp, dtype)
        if not self.counts():
            return state
        return WarmState(**state._asdict(), count=xp.zeros_like(state.weights))

    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> AnyState:
        """Moves the averages of live values and weighs anew; arguments as in `Scheme.update`."""
        low = self.lowest(losses.dtype, xp)
        values, live, bad = screen(losses, xp, present, low)
        start = state.average
        seen = None if knows_all_seen(xp) else start > low
        if self.clip is not None:
            most = self.clip * start
            values = xp.minimum(values, most if seen is None else xp.where(seen, most, values))
        target = xp.where(live, values, start)  # where not live nothing moves
        start = start if seen is None else xp.where(seen, start, target)
        moved = self._moved(state, start, target, live, xp)
        average, still = moved["average"], bad
        if seen is not None:
            unseen = average <= low  # they keep the weight they began with
            average = xp.where(unseen, float(xp.finfo(losses.dtype).max), average)
            still = bad | unseen
        weights = self.weigh_moved(moved, average, state.step, xp)
        weights = xp.where(still, state.weights, weights)
        return state._replace(**moved, weights=weights, **counted(state, bad, xp))

    def _moved(
        self, state: AnyState, start: Array, target: Array, live: Array, xp: Namespace
    ) -> dict[str, Array]:
        """The averages on their way from `start` to `target`, and the count behind them."""
        if not self.counts():
            if self.decay < 0.5:  # from the nearer end, or float32 cancels
                return {"average": lerp(target, start, self.decay, xp)}
            return {"average": lerp(start, target, 1.0 - self.decay, xp)}
        more = xp.clip(state.count + 1.0, 0.0, float(max(self.warmup, 1) + 1))
        pace = xp.where(more > self.warmup, 1.0 - self.decay, 1.0 / more)  # 1 / n: a plain mean
        way = target - start
        average = xp.where(pace < 0.5, start + pace * way, target - (1.0 - pace) * way)
        return {"average": average, "count": xp.where(live, more, state.count)}


class MixedScheme(AveragingScheme):
    r"""A scheme of adaptive shares, the largest 1, and a share gamma of constant weights.

    Attributes:
        gamma: share of the constant weights, in [0, 1], or a schedule of it.
        final_weight: what the last loss counts within the balance, > 0.
        update_every: weights are recomputed at every such update.
    """

    gamma: float | Schedule
    final_weight: float = 1.0
    update_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)
        if callable(self.gamma):  # looked up here, where no compiler traces
            object.__setattr__(self, "_of_step_alone", not _takes_three(self.gamma))
        else:
            check_range("gamma", self.gamma, 0.0, 1.0)
            object.__setattr__(self, "_gamma_narrow", _in_float32(self.gamma))
        check_range("decay", self.decay, 0.0, 1.0, open_high=True)
        check_range("final_weight", self.final_weight, 0.0, open_low=True)
        check_count("update_every", self.update_every)
        check_range("floor", self.floor, 0.0)
        if self.clip is not None:
            check_range("clip", self.clip, 1.0, open_low=True)
        check_count("warmup", self.warmup, 0)

    def largest_weight(self) -> float:
        return 1.0

    def lowest(self, dtype: Any, xp: Namespace) -> float:
        tiny = float(xp.finfo(dtype).tiny)
        return max(self.floor, tiny * max(self.final_weight, 1.0 / self.final_weight))

    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> AnyState:
        new = super().update(state, losses, xp, present)
        if self.update_every == 1:
            return new
        due = new.step % self.update_every == 0
        return new._replace(weights=xp.where(due, new.weights, state.weights))

    @abstractmethod
    def share(self, average: Array, xp: Namespace) -> Array:
        """The adaptive part of the weights for these averages, shape (L,), the largest 1."""

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:
        """The shares, mixed with gamma."""
        share = self.share(average, xp)
        gamma = self.gamma_at(step, xp, average.dtype)
        if callable(self.gamma):
            return lerp(share, xp.ones_like(share), gamma, xp)
        return affine(1.0 - gamma, share, gamma, xp)

    def gamma_at(self, step: Array, xp: Namespace, dtype: Any) -> Any:
        """Gamma now: a number, or of shape () from a schedule."""
        if callable(self.gamma):
            of_step_alone: bool = self._of_step_alone  # type: ignore[attr-defined]
            return self.gamma(step) if of_step_alone else self.gamma(step, xp, dtype)
        # One that the dtype can hold, or it and 1 - gamma would not sum to exactly 1 there.
        narrow = float(xp.finfo(dtype).eps) > _NARROW
        return self._gamma_narrow if narrow else self.gamma  # type: ignore[attr-defined]


def _in_float32(number: float) -> float:
    """The number of float32 nearest to it, without NumPy: `--help` imports this file."""
    narrow: float = struct.unpack("f", struct.pack("f", number))[0]
    return narrow


def _takes_three(function: Callable[..., Any]) -> bool:
    """Whether it can be called with three arguments."""
    try:
        signature(function).bind(None, None, None)
    except TypeError:
        return False
    return True
