"""The adaptive baselines beside AdaLoss.

They give the weights that were published; `scaled=True` divides them by the largest, so that a
learning rate made for AdaLoss or constant weights fits them too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from loss_balance.checks import check_count, check_range
from loss_balance.schemes.adaloss import AdaLoss
from loss_balance.schemes.averaging import AveragingScheme
from loss_balance.schemes.base import (
    UNSEEN,
    AnyState,
    Array,
    Namespace,
    Scheme,
    counted,
    over_largest,
    screen,
)


@dataclass(frozen=True)
class LogLoss(AveragingScheme):
    r"""Weights 1 / loss: the gradient of :math:`\sum_i \log \ell_i`, the paper's Eq. 3 unmixed.

    Also known as the geometric mean or as the logarithm in DB-MTL (Lin et al. 2023,
    arXiv:2308.12029). With `decay` > 0 the running mean stands for the loss.
    """

    num_losses: int
    decay: float = 0.0
    floor: float = 1e-8
    scaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)
        check_range("decay", self.decay, 0.0, 1.0, open_high=True)
        check_range("floor", self.floor, 0.0)

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:  # noqa: ARG002
        return _published(xp.reciprocal(average), self.scaled, xp)


@dataclass(frozen=True)
class SoftmaxInverse(AveragingScheme):
    r"""UW-SO: weights :math:`\mathrm{softmax}(1 / (T \ell_i))`, summing to 1.

    Kirchdorfer et al. 2024, "Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning"
    (arXiv:2408.07985): the closed form of uncertainty weighting, tamed by a softmax. The
    temperature T is in units of 1 / loss and has to be tuned; with `decay` > 0 the running mean
    stands for the loss.
    """

    num_losses: int
    temperature: float = 1.0
    decay: float = 0.0
    floor: float = 1e-8
    scaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)
        check_range("temperature", self.temperature, 0.0, open_low=True)
        check_range("decay", self.decay, 0.0, 1.0, open_high=True)
        check_range("floor", self.floor, 0.0)

    def largest_weight(self) -> float:
        return 1.0

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:  # noqa: ARG002
        inverse = xp.reciprocal(average)
        power = xp.exp((inverse - xp.max(inverse)) / self.temperature)
        power = xp.where(
            average < float(xp.finfo(average.dtype).max), power, 0.0
        )  # 0 if not seen yet
        total = xp.sum(power)
        return _published(power / xp.where(total > 0.0, total, 1.0), self.scaled, xp)


@dataclass(frozen=True)
class GradientNorm(AdaLoss):
    r"""AdaLoss of the losses' gradients: weights by the inverse of their norms' running means.

    The "first-order" variant that Hu et al. leave to future work (Section 6): neither the scale of
    a loss nor a constant added to it matters. The norm is that of a loss's gradient where its exit
    branches off the trunk, over the whole batch, so there must be forks (`fork` of the balancers),
    which see it in the backward pass. Hyperparameters as of AdaLoss, of norms in place of losses.
    """

    observes: ClassVar[Literal["losses", "gradients"]] = "gradients"


class UncertaintyState(NamedTuple):
    """`State`, and the learned logarithm of each loss's variance."""

    average: Array
    weights: Array
    step: Array
    skipped: Array
    recent: Array
    pending: Array
    log_variance: Array  # s, shape (L,)


@dataclass(frozen=True)
class UncertaintyWeighting(Scheme):
    r"""UW: weights :math:`e^{-s_i}` with learned log-variances s (Kendall et al. 2018).

    The published total is :math:`\sum_i e^{-s_i} \ell_i + s_i` (up to a factor 2), minimised over
    the network and s alike. Its gradient for s is :math:`1 - e^{-s_i} \ell_i`, so `update` takes
    the step of plain gradient descent itself and no optimiser has to know of s. The term
    :math:`s_i` has no gradient for the network and is left out of the total, which therefore stays
    positive. At rest a weight is the inverse of its loss.

    Args:
        num_losses: L, the number of losses.
        learning_rate: of s. One step moves s by at most 1, or a large first loss would throw it.
        floor: a loss at or below it leaves its s as it was; s stays within +-log(1 / floor).
        scaled: divide the weights by the largest.
    """

    averages = False

    num_losses: int
    learning_rate: float = 0.01
    floor: float = 1e-8
    scaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)
        check_range("learning_rate", self.learning_rate, 0.0, open_low=True)
        check_range("floor", self.floor, 0.0, 1.0, open_low=True)

    def state_type(self) -> Any:
        return UncertaintyState

    def init(self, xp: Namespace, dtype: Any = None) -> UncertaintyState:
        state = super().init(xp, dtype)
        return UncertaintyState(**state._asdict(), log_variance=xp.zeros_like(state.weights))

    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> UncertaintyState:
        values, live, bad = screen(losses, xp, present, self.floor)
        s = state.log_variance
        slope = 1.0 - xp.exp(-s) * xp.where(live, values, 0.0)
        bound = math.log(1.0 / self.floor)
        moved = xp.clip(s - xp.clip(self.learning_rate * slope, -1.0, 1.0), -bound, bound)
        s = xp.where(live, moved, s)
        weights = xp.where(bad, state.weights, _published(xp.exp(-s), self.scaled, xp))
        moved_state: UncertaintyState = state._replace(
            weights=weights, log_variance=s, **counted(state, bad, xp)
        )
        return moved_state

    def largest_weight(self) -> float:
        return 1.0 if self.scaled else 1.0 / self.floor * (1.0 + 1e-6)  # exp rounds


class WindowState(NamedTuple):
    """`State` (its average over the present window), and what the windows before it left."""

    average: Array
    weights: Array
    step: Array
    skipped: Array
    recent: Array
    pending: Array
    count: Array  # shape (L,), values in the present window
    previous: Array  # shape (L,), mean of the last window, UNSEEN before one has ended


@dataclass(frozen=True)
class DynamicWeightAverage(Scheme):
    r"""DWA: :math:`L \cdot \mathrm{softmax}(r_i / T)`, r the fall of each loss (Liu et al. 2019).

    r is the mean loss of the last epoch over that of the epoch before it, 1 as long as there are
    not two, so weights stand still within an epoch and sum to the number of losses. Negative losses
    are values like any other; where the earlier mean is not above `floor`, r is 1.

    Args:
        num_losses: L, the number of losses.
        window: updates per epoch.
        temperature: T; large makes the weights even. The publication uses 2.
        floor: a loss within it is off and where the earlier mean is at or below it, r is 1.
        scaled: divide the weights by the largest.
    """

    takes_negative = True

    num_losses: int
    window: int
    temperature: float = 2.0
    floor: float = 1e-8
    scaled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)
        check_count("window", self.window)
        check_range("temperature", self.temperature, 0.0, open_low=True)
        check_range("floor", self.floor, 0.0)

    def state_type(self) -> Any:
        return WindowState

    def init(self, xp: Namespace, dtype: Any = None) -> WindowState:
        state = super().init(xp, dtype)
        return WindowState(
            **state._asdict(),
            count=xp.zeros_like(state.weights),
            previous=xp.full_like(state.weights, UNSEEN),
        )

    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> WindowState:
        values, live, bad = screen(losses, xp, present, self.floor, negative=True)
        count = xp.where(live, state.count + 1.0, state.count)
        moved = state.average + (values - state.average) / xp.where(live, count, 1.0)
        average = xp.where(live, xp.where(count == 1.0, values, moved), state.average)
        ends = (state.step + 1) % self.window == 0
        seen = count > 0.0
        weights = xp.where(bad, state.weights, self._weights(average, state.previous, seen, xp))
        moved_state: WindowState = state._replace(
            average=average,
            weights=xp.where(ends, weights, state.weights),
            count=xp.where(ends, 0.0, count),
            previous=xp.where(ends & seen, average, state.previous),
            **counted(state, bad, xp),
        )
        return moved_state

    def largest_weight(self) -> float:
        return 1.0 if self.scaled else float(self.num_losses) * (1.0 + 1e-6)  # the sum rounds

    def _weights(self, average: Array, previous: Array, seen: Array, xp: Namespace) -> Array:
        known = seen & (previous > self.floor)
        ratio = xp.where(known, average / xp.where(known, previous, 1.0), 1.0)
        power = xp.exp((ratio - xp.max(ratio)) / self.temperature)
        return _published(self.num_losses * power / xp.sum(power), self.scaled, xp)


def _published(weights: Array, scaled: bool, xp: Namespace) -> Array:
    """The weights as published, or divided by their largest."""
    return over_largest(weights, xp) if scaled else weights
