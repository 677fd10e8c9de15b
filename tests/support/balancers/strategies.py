"""What hypothesis draws: schemes, losses, sequences of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from loss_balance import AdaLoss, LinearSchedule

sizes = st.integers(1, 8)
fractions = st.floats(0.0, 1.0)
decays = st.one_of(st.just(0.0), st.floats(0.01, 0.999))


def positive(n: int, low: float = 1e-6, high: float = 1e6) -> st.SearchStrategy[list[float]]:
    """`n` losses, evenly spread over the magnitudes from `low` to `high`."""
    exponent = st.floats(math.log10(low), math.log10(high))
    return st.lists(exponent.map(lambda e: 10.0**e), min_size=n, max_size=n)


def any_losses(n: int) -> st.SearchStrategy[list[float | None]]:
    """As `positive`, with zeros, NaN, infinities, negatives and absents among them."""
    odd = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, -1.0, None])
    usual = st.floats(-6, 6).map(lambda e: 10.0**e)
    return st.lists(st.one_of(usual, usual, odd), min_size=n, max_size=n)


@st.composite
def hyperparameters(draw) -> dict:
    schedules = st.builds(LinearSchedule, fractions, fractions, st.integers(1, 12))
    return {
        "gamma": draw(st.one_of(fractions, schedules)),
        "decay": draw(decays),
        "final_weight": draw(st.sampled_from([1.0, 1.0, 2.0, 0.5, 3.7])),
        "update_every": draw(st.sampled_from([1, 1, 1, 2, 5])),
        "floor": draw(st.sampled_from([1e-8, 0.0, 1e-3])),
        "clip": draw(st.sampled_from([None, None, 1.5, 10.0])),
        "warmup": draw(st.sampled_from([0, 0, 1, 4])),
    }


@st.composite
def runs(draw, steps: int = 12) -> tuple[AdaLoss, dict, list[list[float | None]]]:
    """A scheme, the oracle's arguments for it, and the losses of up to `steps` steps."""
    n = draw(sizes)
    options = draw(hyperparameters())
    losses = draw(st.lists(any_losses(n), min_size=1, max_size=steps))
    scheme = AdaLoss(n, **options)
    if isinstance(options["gamma"], LinearSchedule):
        options = options | {"gamma": exactly(options["gamma"])}
    return scheme, {"n": n} | options, losses


def exactly(schedule: LinearSchedule) -> Callable[[int], float]:
    """The schedule in rational numbers, rounded once, for the oracle."""

    def value(step: int) -> float:
        start, stop = Fraction(schedule.start), Fraction(schedule.stop)
        done = Fraction(min(step, schedule.steps), schedule.steps)
        return float(start + (stop - start) * done)

    return value


def as_arrays(
    losses: list[float | None], dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray | None]:
    """(losses, present) as `Scheme.update` takes them."""
    present = np.array([x is not None for x in losses])
    values = np.array([0.0 if x is None else x for x in losses], dtype)
    return values, None if present.all() else present
