"""Schemes of fixed weights, scaled so that the largest is 1, as AdaLoss's is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from loss_balance.checks import check_count, check_range
from loss_balance.schemes.base import Array, Namespace, Scheme, State, counted, screen_finite


class FixedScheme(Scheme):
    """A scheme whose weights never change; it still counts bad values in `skipped`.

    Its weights are configuration: no state, however it came, has any others.
    """

    takes_negative = True
    averages = False

    def largest_weight(self) -> float:
        return max(self.initial_weights())

    def update(
        self, state: State, losses: Array, xp: Namespace, present: Array | None = None
    ) -> State:
        _, bad = screen_finite(losses, xp, present)
        return state._replace(**counted(state, bad, xp))


@dataclass(frozen=True)
class Constant(FixedScheme):
    """CONST: every weight is 1 (Lee et al. 2015; Xie & Tu 2015; Huang et al. 2017)."""

    num_losses: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_losses", self.num_losses)


@dataclass(frozen=True)
class Linear(FixedScheme):
    """LINEAR: weights rise evenly from `start` to `stop` (Zamir et al. 2017; paper Section 3).

    A single loss gets `stop`.
    """

    num_losses: int
    start: float = 0.25
    stop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
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
        super().__post_init__()
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
        super().__post_init__()
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
