from __future__ import annotations

import pickle

import numpy as np
import pytest
from contract import STEPS, BalancerContract

from loss_balance import AdaLoss
from loss_balance.backends.numpy import Balancer


def convert(losses, dtype):
    """Floats in whatever container to scalars or an array of `dtype`."""
    one = np.dtype(dtype).type
    if isinstance(losses, dict):
        return {name: one(x) for name, x in losses.items()}
    if isinstance(losses, np.ndarray):
        return losses.astype(dtype)
    return type(losses)(x if x is None or isinstance(x, np.ndarray) else one(x) for x in losses)


class TestNumPy(BalancerContract):
    low_precision = "float16"
    wide = np.float64

    def make(self, scheme, **options):
        return Balancer(scheme, **options)

    def step(self, balancer, losses, mask=None, dtype="float32"):
        return balancer(convert(losses, dtype), mask=mask)

    def evaluate(self, balancer, losses):
        return float(balancer(losses, training=False))

    def dtype_of(self, total):
        return total.dtype.name

    def save(self, balancer, path):
        path.write_bytes(pickle.dumps(balancer))

    def load(self, balancer, path):
        balancer.__dict__.update(vars(pickle.loads(path.read_bytes())))


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


def test_something_else_than_losses_is_refused():
    with pytest.raises(ValueError, match="must be a sequence, a mapping or a stacked array"):
        Balancer(2)(x for x in (1.0, 2.0))


def test_a_float32_state_on_request():
    balance = Balancer(3, dtype=np.float32)
    for losses in STEPS:
        balance(np.array(losses))
    assert balance.weights.dtype == np.float32
