r"""AdaLoss: each loss weighs the inverse of its running mean.

Source: Hu, Dey, Hebert, Bagnell, "Learning Anytime Predictions in Neural Networks via Adaptive
Loss Balancing", Section 3 and Appendix B. Minimising the geometric mean of the losses (Eq. 3) has
the gradient :math:`\sum_i \nabla\ell_i / \ell_i`; AdaLoss puts a running mean in the denominator
and mixes in constant weights (Eq. 6) so that no loss starves. This file is the one place with that
formula: every backend calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loss_balance.checks import check_count, check_range
from loss_balance.schemes.averaging import MixedScheme, Schedule
from loss_balance.schemes.base import Array, Namespace, Scheme


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


@dataclass(frozen=True)
class AdaLoss(MixedScheme):
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
    AdaLoss balances scales within that range and is no general unit converter; `RelativeAdaLoss`,
    whose floor is in units of each loss, is one.

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

    def share(self, average: Array, xp: Namespace) -> Array:
        """Alpha scaling."""
        scaled = average  # average_i / p_i, but for a factor that keeps the largest number finite
        if self.final_weight > 1.0:
            scaled = xp.concatenate((average[:-1], average[-1:] / self.final_weight))
        elif self.final_weight < 1.0:
            scaled = xp.concatenate((average[:-1] * self.final_weight, average[-1:]))
        # One division, of equals where it is 1: of two XLA makes a product, and 1 is an ulp off.
        return xp.min(scaled) / scaled  # alpha p_i / average_i


def as_scheme(scheme: Scheme | int) -> Scheme:
    """`scheme` itself, or AdaLoss with its defaults for that many losses."""
    return scheme if isinstance(scheme, Scheme) else AdaLoss(scheme)
