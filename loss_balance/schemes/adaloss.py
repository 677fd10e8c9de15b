r"""AdaLoss: each loss weighs the inverse of its running mean.

Source: Hu, Dey, Hebert, Bagnell, "Learning Anytime Predictions in Neural Networks via Adaptive
Loss Balancing", Section 3 and Appendix B. Minimising the geometric mean of the losses (Eq. 3) has
the gradient :math:`\sum_i \nabla\ell_i / \ell_i`; AdaLoss puts a running mean in the denominator
and mixes in constant weights (Eq. 6) so that no loss starves. This file is the one place with that
formula: every backend calls it.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LinearSchedule:
    """A number that moves evenly from `start` to `stop` over `steps` updates, then stays.

    >>> import numpy as np
    >>> [float(LinearSchedule(1.0, 0.0, 4)(step, np, float)) for step in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]

    `AdaLoss(9, gamma=LinearSchedule(1.0, 0.0, 10_000))` is the paper's "gradually reducing gamma
    from 1 to 0" (Appendix B). The first update uses `start`.
    """

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        check_range("start", self.start, 0.0, 1.0)
        check_range("stop", self.stop, 0.0, 1.0)
        check_count("steps", self.steps)

    def __call__(self, step: Array, xp: Namespace, dtype: Any) -> Array:
        """The value after `step` updates, shape (), in `dtype`."""
        done = xp.clip(step, 0, self.steps)
        rising = self.stop > self.start
        away = xp.asarray(done if rising else self.steps - done, dtype=dtype)
        low, high = sorted((self.start, self.stop))  # up from the low end: nothing cancels
        return low + (high - low) / self.steps * away


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

    def lowest(self, dtype: Any, xp: Namespace) -> float:
        """Averages are above it: `floor`, but no less than has an inverse in that dtype."""
        return max(self.floor, float(xp.finfo(dtype).tiny))

    def has_seen_all(self, average: Array, losses: Array, xp: Namespace) -> bool:
        low = self.lowest(average.dtype, xp)
        return bool(xp.all((average > low) | ((losses > low) & xp.isfinite(losses))))

    def state_type(self) -> Any:
        return State if self.warmup < 2 else WarmState  # the first value starts it in any case

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        state = super().init(xp, dtype)
        if self.warmup < 2:
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
        weights = xp.where(still, state.weights, self.weigh(average, state.step, xp))
        return state._replace(**moved, weights=weights, **counted(state, bad, xp))

    def _moved(
        self, state: AnyState, start: Array, target: Array, live: Array, xp: Namespace
    ) -> dict[str, Array]:
        """The averages on their way from `start` to `target`, and the count behind them."""
        if self.warmup < 2:
            if self.decay < 0.5:  # from the nearer end, or float32 cancels
                return {"average": lerp(target, start, self.decay, xp)}
            return {"average": lerp(start, target, 1.0 - self.decay, xp)}
        more = xp.clip(state.count + 1.0, 0.0, float(self.warmup + 1))
        pace = xp.where(more > self.warmup, 1.0 - self.decay, 1.0 / more)  # 1 / n: a plain mean
        way = target - start
        average = xp.where(pace < 0.5, start + pace * way, target - (1.0 - pace) * way)
        return {"average": average, "count": xp.where(live, more, state.count)}


@dataclass(frozen=True)
class AdaLoss(AveragingScheme):
    r"""Adaptive loss balancing (paper Eq. 3 and Eq. 6, Appendix B).

    With p = (1, ..., 1, `final_weight`), after each step

    .. math::
        \hat\ell_i &\leftarrow \ell_i \text{ at first, then } d\,\hat\ell_i + (1 - d)\,\ell_i \\
        \alpha &= \min_j \hat\ell_j / p_j \\
        w_i &= (1 - \gamma)\,\alpha\,p_i / \hat\ell_i + \gamma

    so the largest weight is exactly 1 and none is below gamma. The weights include this step's
    losses.

    A loss that is NaN, infinite or negative leaves its average and its weight as they were and is
    counted in `State.skipped`. A loss at or below `floor` is off in that step, as if absent: a
    coefficient at 0, a placeholder or a hinge at rest moves no average and starves nobody. So a
    loss that is truly solved, at 0 for good, keeps the average of its last value above `floor`. A
    loss not seen yet takes no part in alpha and weighs 1.

    >>> import numpy as np
    >>> scheme = AdaLoss(3, gamma=0.0)
    >>> state = scheme.update(scheme.init(np), np.array([4.0, 1.0, 0.5]), np)
    >>> state.weights.tolist()
    [0.125, 0.5, 1.0]

    Known limit: a loss more than 1/gamma times the smallest average sits on the gamma floor, so
    AdaLoss balances scales within that range and is no general unit converter.

    Args:
        num_losses: L, the number of losses.
        gamma: share of the constant weights, in [0, 1], or a schedule evaluated on `State.step`:
            `LinearSchedule`, or any hashable callable of its signature or of the step alone, as
            Optax's are.
        decay: d, of the running mean, in [0, 1).
        final_weight: p of the last loss, > 0. The paper doubles it (2.0) on ILSVRC, which makes
            Eq. 3 a weighted geometric mean: it counts within the balance, so that alpha and the
            other weights follow. To scale a loss after the balance, say to ramp a term up from 0,
            take a balancer's `priorities`.
        update_every: weights are recomputed at every such update and are 1 before the first one;
            the averages follow every step. The authors' code used 1, 100 and 600.
        floor: in units of the losses, >= 0.
        clip: a loss above `clip` times its average enters it as that, > 1. One spike of 1e30 is
            remembered for thousands of steps otherwise; in return an average that really rises
            grows by at most 1 + (clip - 1)(1 - decay) a step. None, as in the paper: no limit.
        warmup: the mean of the first `warmup` values is a plain one, so that the very first one
            has no share of its own in it. 0, as in the paper: the first value starts the mean.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    num_losses: int
    gamma: float | Schedule = 0.05
    decay: float = 0.99
    final_weight: float = 1.0
    update_every: int = 1
    floor: float = 1e-8
    clip: float | None = None
    warmup: int = 0

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

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:
        """Alpha scaling and gamma-mixing."""
        scaled = average  # average_i / p_i, but for a factor that keeps the largest number finite
        if self.final_weight > 1.0:
            scaled = xp.concatenate((average[:-1], average[-1:] / self.final_weight))
        elif self.final_weight < 1.0:
            scaled = xp.concatenate((average[:-1] * self.final_weight, average[-1:]))
        # One division, of equals where it is 1: of two XLA makes a product, and 1 is an ulp off.
        share = xp.min(scaled) / scaled  # alpha p_i / average_i
        if callable(self.gamma):
            gamma_now = self._gamma_at(self.gamma, step, xp, average.dtype)
            return lerp(share, xp.ones_like(share), gamma_now, xp)
        # Of a gamma that the dtype can hold, or both factors would not sum to exactly 1 in it.
        narrow = float(xp.finfo(share.dtype).eps) > _NARROW
        gamma = self._gamma_narrow if narrow else self.gamma  # type: ignore[attr-defined]
        return affine(1.0 - gamma, share, gamma, xp)

    def _gamma_at(self, schedule: Schedule, step: Array, xp: Namespace, dtype: Any) -> Array:
        of_step_alone: bool = self._of_step_alone  # type: ignore[attr-defined]
        return schedule(step) if of_step_alone else schedule(step, xp, dtype)


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


def as_scheme(scheme: Scheme | int) -> Scheme:
    """`scheme` itself, or AdaLoss with its defaults for that many losses."""
    return scheme if isinstance(scheme, Scheme) else AdaLoss(scheme)
