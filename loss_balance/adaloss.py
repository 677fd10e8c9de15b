r"""AdaLoss: each loss weighs the inverse of its running mean.

Source: Hu, Dey, Hebert, Bagnell, "Learning Anytime Predictions in Neural Networks via Adaptive
Loss Balancing", Section 3 and Appendix B. Minimising the geometric mean of the losses (Eq. 3) has
the gradient :math:`\sum_i \nabla\ell_i / \ell_i`; AdaLoss puts a running mean in the denominator
and mixes in constant weights (Eq. 6) so that no loss starves. This file is the one place with that
formula: every backend calls it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loss_balance.base import (
    Array,
    Namespace,
    Scheme,
    State,
    check_count,
    check_range,
    screen,
)

Schedule = Callable[[Array, Namespace, Any], Array]  # (step, xp, dtype) -> number, shape ()


@dataclass(frozen=True)
class LinearSchedule:
    """A number that moves evenly from `start` to `stop` over `steps` updates, then stays.

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


class AveragingScheme(Scheme):
    """A scheme whose weights follow from a running mean of each loss, with `decay`."""

    decay: float

    @abstractmethod
    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:
        """The weights for these averages, both shape (L,); `step` updates came before this one."""

    def update(
        self, state: State, losses: Array, xp: Namespace, present: Array | None = None
    ) -> State:
        """Moves the averages of good values and weighs anew; arguments as in `Scheme.update`."""
        clipped, bad = screen(losses, xp, present)
        frozen = bad if present is None else bad | xp.logical_not(present)
        if self.decay < 0.5:  # from the nearer end, or float32 cancels
            moved = lerp(clipped, state.average, self.decay, xp)
        else:
            moved = lerp(state.average, clipped, 1.0 - self.decay, xp)
        moved = xp.where(state.average < 0.0, clipped, moved)  # the first valid value starts it
        average = xp.where(frozen, state.average, moved)
        weights = xp.where(bad, state.weights, self.weigh(average, state.step, xp))
        return State(average, weights, state.step + 1, xp.add(state.skipped, bad))


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
    counted in `State.skipped`. An average at or below `floor` (a loss not seen yet, or at zero)
    takes no part in alpha and weighs 1: it has no gradient to speak of and must not starve others.

    Known limit: a loss more than 1/gamma times the smallest average sits on the gamma floor, so
    AdaLoss balances scales within that range and is no general unit converter.

    Args:
        num_losses: L, the number of losses.
        gamma: share of the constant weights, in [0, 1], or a schedule evaluated on `State.step`
            (`LinearSchedule`, or any hashable callable of its signature).
        decay: d, of the running mean, in [0, 1).
        final_weight: p of the last loss, > 0. The paper doubles it (2.0) on ILSVRC, which makes
            Eq. 3 a weighted geometric mean.
        update_every: weights are recomputed at every such update and are 1 before the first one;
            the averages follow every step. The authors' code used 1, 100 and 600.
        floor: in units of the losses, >= 0.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    num_losses: int
    gamma: float | Schedule = 0.05
    decay: float = 0.99
    final_weight: float = 1.0
    update_every: int = 1
    floor: float = 1e-8

    def __post_init__(self) -> None:
        check_count("num_losses", self.num_losses)
        if not callable(self.gamma):
            check_range("gamma", self.gamma, 0.0, 1.0)
        check_range("decay", self.decay, 0.0, 1.0, open_high=True)
        check_range("final_weight", self.final_weight, 0.0, open_low=True)
        check_count("update_every", self.update_every)
        check_range("floor", self.floor, 0.0)

    def update(
        self, state: State, losses: Array, xp: Namespace, present: Array | None = None
    ) -> State:
        new = super().update(state, losses, xp, present)
        if self.update_every == 1:
            return new
        due = new.step % self.update_every == 0
        return new._replace(weights=xp.where(due, new.weights, state.weights))

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:
        """Alpha scaling and gamma-mixing."""
        gamma = self.gamma(step, xp, average.dtype) if callable(self.gamma) else self.gamma
        active = average > self.floor
        ratio = average  # average_i / p_i
        if self.final_weight != 1.0:
            ratio = xp.concatenate((average[:-1], average[-1:] / self.final_weight))
        alpha = xp.min(xp.where(active, ratio, float(xp.finfo(average.dtype).max)))
        share = alpha / xp.where(active, ratio, alpha)  # alpha p_i / average_i
        # Not (1 - gamma) * share + gamma: in float32 that is not always exactly 1 at share = 1.
        return lerp(share, xp.ones_like(share), gamma, xp)


def lerp(start: Array, end: Array, weight: Any, xp: Namespace) -> Array:
    """`start + weight * (end - start)`: one kernel in torch, which has it; numpy and jax do not."""
    if hasattr(xp, "lerp") and start.dtype == end.dtype:
        return xp.lerp(start, end, weight)
    return start + weight * (end - start)


def as_scheme(scheme: Scheme | int) -> Scheme:
    """`scheme` itself, or AdaLoss with its defaults for that many losses."""
    return scheme if isinstance(scheme, Scheme) else AdaLoss(scheme)
