r"""AdaLoss's kin: other means of the losses, and one that does not care for their units.

Minimising a mean of the losses pulls on the network with the weighted sum of their gradients; which
mean it is decides how much a large loss counts against a small one. AdaLoss's geometric mean is one
of the power means, and its constant share is in the unit that the losses happen to share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from loss_balance.checks import check_range
from loss_balance.schemes.adaloss import AdaLoss
from loss_balance.schemes.averaging import MixedScheme, Schedule
from loss_balance.schemes.base import UNSEEN, AnyState, Array, Namespace, over_largest


@dataclass(frozen=True)
class PowerMean(MixedScheme):
    r"""The gradient of a power mean of the losses.

    With :math:`q` for `power` and p = (1, ..., 1, `final_weight`), the mean
    :math:`M_q = (\sum_i p_i \ell_i^q / \sum_i p_i)^{1/q}` has the gradient
    :math:`\sum_i p_i \ell_i^{q-1} \nabla\ell_i` but for a factor that all losses share. With the
    running means that AdaLoss keeps,

    .. math::
        w_i = (1 - \gamma)\, \frac{p_i \hat\ell_i^{q-1}}{\max_j p_j \hat\ell_j^{q-1}} + \gamma

    so the largest weight is exactly 1. q = 1 is the sum of the losses, constant weights; q = 0 the
    geometric mean, AdaLoss's; q = -1 the harmonic one. The smaller q, the more the mean is that of
    its small losses: at q = -1 a loss twice as large weighs a quarter and pulls half as hard.
    The power 0 alone does not care for the losses' units.

    >>> import numpy as np
    >>> scheme = PowerMean(3, power=-1.0)
    >>> scheme.update(scheme.init(np), np.array([4.0, 1.0, 0.5]), np).weights.tolist()
    [0.015625, 0.25, 1.0]

    Losses that are bad, absent or at or below `floor` are treated as by AdaLoss.

    Args:
        num_losses: L, the number of losses.
        power: q, at most 1.
        gamma: share of the constant weights, as of AdaLoss; 0.05 and power 0 are its defaults.
        decay: of the running mean, in [0, 1).
        final_weight: p of the last loss, > 0.
        update_every: weights are recomputed at every such update.
        floor: in units of the losses, >= 0.
        clip: a loss above `clip` times its average enters it as that, > 1.
        warmup: the mean of the first `warmup` values is a plain one.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    num_losses: int
    power: float = 0.0
    gamma: float | Schedule = 0.0
    decay: float = 0.99
    final_weight: float = 1.0
    update_every: int = 1
    floor: float = 1e-8
    clip: float | None = None
    warmup: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("power", self.power, -math.inf, 1.0, open_low=True)

    def share(self, average: Array, xp: Namespace) -> Array:
        share = (xp.min(average) / average) ** (1.0 - self.power)
        if self.final_weight == 1.0:
            return share  # 1 to any power where the average is the smallest
        share = xp.concatenate((share[:-1], share[-1:] * self.final_weight))
        seen = average < float(xp.finfo(average.dtype).max)
        return over_largest(xp.where(seen, share, 0.0), xp)


class RelativeState(NamedTuple):
    """`WarmState`, and the unit of each loss."""

    average: Array
    weights: Array
    step: Array
    skipped: Array
    recent: Array
    pending: Array
    count: Array  # shape (L,), values so far, up to `warmup`
    reference: Array  # shape (L,), the largest average so far, UNSEEN before a first valid value


@dataclass(frozen=True)
class RelativeAdaLoss(AdaLoss):
    r"""AdaLoss with its floor in units of each loss, for losses of different units.

    AdaLoss's weights are the gradient of
    :math:`(1 - \gamma)\,\alpha \sum_i p_i \log \ell_i + \gamma \sum_i \ell_i`. The units drop out
    of the logarithms, not of the sum: where one loss is in thousands and another in hundredths,
    gamma gives all to the first. Here the sum is of losses relative to the largest that their
    running means have been: where they began, mostly, as GradNorm (Chen et al. 2018) and ReLoBRaLo
    (Bischof & Kraus 2021) measure them; but a loss that is small at first by accident, as the
    boundary's of a network that starts near 0, has a unit that grows with it.

    .. math::
        s_i &= \max_t \hat\ell_i(t) \\
        \alpha &= \min_j \hat\ell_j / (s_j p_j) \\
        v_i &= (1 - \gamma)\,\alpha\,p_i / \hat\ell_i + \gamma / s_i \\
        w_i &= v_i / \max_j v_j

    so the largest weight is exactly 1, and another unit, c times loss i, makes 1/c of its weight:
    what the network is pulled by stays the same but for a factor that all losses share. Relative
    to its largest mean, no loss weighs less than gamma times as much as any other. gamma = 1 are
    the weights 1 / s alone; gamma = 0 is AdaLoss with gamma = 0. Where units differ by much all but
    one weight are tiny: take an optimiser that does not mind (Adam), or tune the learning rate.

    >>> import numpy as np
    >>> scheme = RelativeAdaLoss(2, decay=0.0)
    >>> state = scheme.update(scheme.init(np), np.array([1000.0, 0.25]), np)
    >>> state = scheme.update(state, np.array([500.0, 0.25]), np)  # the large one has halved
    >>> (state.weights * 4000).round(6).tolist()
    [1.904762, 4000.0]

    Hyperparameters as of AdaLoss. `gamma` is the share of the weights 1 / s. A spike stays in s for
    good where nothing clips it: set `clip` where they come. With `warmup` a noisy first value does
    not stay in it either.
    """

    def counts(self) -> bool:
        return True

    def state_type(self) -> Any:
        return RelativeState

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        state = super().init(xp, dtype)
        return RelativeState(**state._asdict(), reference=xp.full_like(state.weights, UNSEEN))

    def _moved(
        self, state: AnyState, start: Array, target: Array, live: Array, xp: Namespace
    ) -> dict[str, Array]:
        moved = super()._moved(state, start, target, live, xp)
        average, most = moved["average"], state.reference
        return {**moved, "reference": xp.where(average > most, average, most)}

    def weigh_moved(
        self, moved: dict[str, Array], average: Array, step: Array, xp: Namespace
    ) -> Array:
        """AdaLoss's weights of the relative losses, over the units."""
        low, most = self.lowest(average.dtype, xp), float(xp.finfo(average.dtype).max)
        seen, root = average < most, math.sqrt(most)
        unit = xp.where(moved["reference"] > low, moved["reference"], average)
        # Within these bounds no quotient overflows.
        average, unit = xp.clip(average, 1.0 / root, root), xp.clip(unit, 1.0 / root, root)
        weights = self.weigh(xp.where(seen, average / unit, most), step, xp) / unit
        return over_largest(xp.where(seen, weights, 0.0), xp)
