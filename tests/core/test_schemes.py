from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.balancers.strategies import any_losses, as_arrays

from loss_balance import Constant, HalfEnd, Linear, Single, Static

FIXED = [Constant(5), Linear(5), HalfEnd(5), Single(5, 2), Static((3.0, 0.0, 1.0, 2.0, 5.0))]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Constant(3), [1, 1, 1]),
        (Linear(5), [0.25, 0.4375, 0.625, 0.8125, 1]),
        (Linear(3, start=1.0, stop=0.5), [1, 0.75, 0.5]),
        (Linear(1), [1]),
        (HalfEnd(5), [0.25, 0.25, 0.25, 0.25, 1]),
        (HalfEnd(1), [1]),
        (Single(3), [0, 0, 1]),
        (Single(3, index=0), [1, 0, 0]),
        (Static([0.5, 2.0]), [0.5, 2.0]),
    ],
)
def test_weights_are_those_of_the_paper(scheme, expected):
    assert scheme.init(np).weights.tolist() == expected


def test_half_end_gives_the_last_loss_half_of_the_total():
    w = HalfEnd(7).init(np).weights
    assert w[-1] == pytest.approx(w[:-1].sum())


@pytest.mark.parametrize("scheme", FIXED, ids=lambda s: type(s).__name__)
@given(st.lists(any_losses(5), max_size=6))
def test_fixed_weights_stay_and_bad_values_are_counted(scheme, steps):
    state = scheme.init(np)
    first = state.weights.copy()
    bad = np.zeros(5, int)
    for losses in steps:
        values, present = as_arrays(losses)
        state = scheme.update(state, values, np, present)
        bad += [x is not None and not math.isfinite(x) for x in losses]
    np.testing.assert_array_equal(state.weights, first)
    assert state.skipped.tolist() == bad.tolist()
    assert state.step == len(steps)


@pytest.mark.parametrize("scheme", FIXED, ids=lambda s: type(s).__name__)
def test_schemes_are_hashable_values(scheme):
    assert len({scheme, type(scheme)(**_arguments(scheme))}) == 1


def _arguments(scheme):
    return {k: v for k, v in vars(scheme).items() if type(scheme) is not Static or k == "weights"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0), "num_losses must be a whole number"),
        (lambda: Constant(True), "num_losses must be a whole number"),
        (lambda: Linear(3, start=-1.0), "start must be a number"),
        (lambda: Linear(3, stop=0.0), "stop must be a number"),
        (lambda: HalfEnd(-1), "num_losses must be a whole number"),
        (lambda: Single(3, 3), "index must be within the 3 losses, got 3"),
        (lambda: Single(3, -4), "index must be within the 3 losses, got -4"),
        (lambda: Static(()), "the number of weights must be a whole number of at least 1, got 0"),
        (lambda: Static((1.0, -1.0)), "weights must be finite, none negative"),
        (lambda: Static((0.0, 0.0)), "not all zero"),
        (lambda: Static((1.0, math.nan)), "weights must be finite"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
