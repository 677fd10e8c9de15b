from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from support.balancers.contract import STEPS, BalancerContract
from support.balancers.foreign_states import mangled

from loss_balance import AdaLoss
from loss_balance.backends.numpy import Balancer


def convert(losses, dtype):
    """Floats in whatever container to scalars or an array of `dtype`."""
    one = np.dtype(dtype).type
    if np.isscalar(losses):
        return losses
    if isinstance(losses, dict):
        return {name: None if x is None else one(x) for name, x in losses.items()}
    if isinstance(losses, np.ndarray):
        return losses.astype(dtype)
    return type(losses)(x if x is None or isinstance(x, np.ndarray) else one(x) for x in losses)


def as_it_is(losses):
    return losses


class TestNumPy(BalancerContract):
    low_precision = "float16"
    wide = np.float64

    def make(self, scheme, **options):
        return Balancer(scheme, **options)

    def step(self, balancer, losses, mask=None, dtype="float32", *, wrap=as_it_is, **options):
        return balancer(wrap(convert(losses, dtype)), mask=mask, **options)

    def evaluate(self, balancer, losses):
        return float(balancer(losses, training=False))

    def dtype_of(self, total):
        return total.dtype.name

    def save(self, balancer, path):
        path.write_bytes(pickle.dumps(balancer))

    def load(self, balancer, path):
        balancer.__dict__.update(vars(pickle.loads(path.read_bytes())))

    @settings(max_examples=500)  # what all backends read a state with, where a try is cheapest
    @given(mangled())
    def test_whatever_comes_for_long_is_refused_or_leaves_a_state_that_can_be(self, drawn):
        self.assert_refused_or_can_be(*drawn)


def test_the_training_attribute_freezes_every_call():
    balance = Balancer(3)
    balance.training = False
    assert balance([1.0, 2.0, 3.0]) == 6.0
    assert balance.state.step == 0


def test_whole_numbers_are_losses_too():
    assert Balancer(AdaLoss(2, gamma=0.0))([4, 1]) == 2.0


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="losses must be real numbers, got dtype complex128"):
        Balancer(2)(np.array([1j, 2.0]))


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_a_state_too_narrow_for_a_mean_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        Balancer(2, dtype=dtype)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_every_nth_call_is_an_update(accumulate):
    by_count, by_hand = Balancer(2, accumulate=accumulate), Balancer(2)
    for k in range(2 * accumulate):
        losses = [1.0 + k, 1.0]
        assert by_count(losses) == by_hand(losses, update=(k + 1) % accumulate == 0)
        if k == accumulate:  # in the middle
            resumed = Balancer(2, accumulate=accumulate)
            resumed.import_state(by_count.export_state())
            by_count = resumed
    assert by_count.state.step == 2


def test_a_float32_state_on_request():
    balance = Balancer(3, dtype=np.float32)
    for losses in STEPS:
        balance(np.array(losses))
    assert balance.weights.dtype == np.float32
