"""Weight schemes that were tried and are not in the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from loss_balance.schemes.adaloss import AdaLoss
from loss_balance.schemes.base import AnyState, Array, Namespace


@dataclass(frozen=True)
class PowerMean(AdaLoss):
    """Weights average^(p - 1), the largest 1: the gradient of a power mean; p = 0 is AdaLoss's."""

    p: float = 0.0

    def __init__(self, num_losses: int, p: float, gamma: float = 0.0) -> None:
        for name, value in {
            "num_losses": num_losses,
            "p": p,
            "gamma": gamma,
        }.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def weigh(self, average: Array, step: Array, xp: Namespace) -> Array:  # noqa: ARG002
        share = (xp.min(average) / average) ** (1.0 - self.p)
        return share * (1.0 - self.gamma) + self.gamma  # type: ignore[operator]


class ExcessState(NamedTuple):
    """`State`, and the lowest average of each loss so far."""

    average: Array
    weights: Array
    step: Array
    skipped: Array
    recent: Array
    pending: Array
    best: Array


@dataclass(frozen=True)
class ExcessLoss(AdaLoss):
    """Weights 1 / (average - best seen): a loss that still falls is at its best, and weighs 1.

    The excess is at least a tenth of the average, or a loss at its best would take everything.
    """

    def state_type(self) -> Any:
        return ExcessState

    def init(self, xp: Namespace, dtype: Any = None) -> AnyState:
        state = super().init(xp, dtype)
        return ExcessState(
            *state, best=xp.full_like(state.weights, float(xp.finfo(state.weights.dtype).max))
        )

    def update(
        self, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
    ) -> AnyState:
        new = super().update(state, losses, xp, present)
        best = xp.minimum(state.best, xp.minimum(losses, new.average))
        excess = xp.maximum(new.average - best, 0.1 * new.average)
        share = xp.min(excess) / excess
        return new._replace(best=best, weights=share * (1.0 - self.gamma) + self.gamma)  # type: ignore[operator]
