"""The contract of balancers where the state lies on four devices."""

from __future__ import annotations

from inspect import getmembers

import pytest
from hypothesis import is_hypothesis_test

jax = pytest.importorskip("jax")
pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.jax_contract import FunctionsContract, Loop
from support.balancers.jax_devices import EVERYWHERE


class OverDevices(Loop):
    """Whatever comes as the state goes to every device."""

    @property
    def state(self):
        return self._state

    @state.setter
    def state(self, state):
        self._state = jax.device_put(state, EVERYWHERE)


class TestOverFourDevices(FunctionsContract):
    def make(self, scheme, *, dtype=jnp.float32, **options):
        with jax.enable_x64(dtype == jnp.float64):
            return OverDevices(scheme, dtype=dtype, **options)

    def test_the_state_lies_on_four_devices_after_a_step(self):
        balancer = self.make(3)
        self.step(balancer, [4.0, 1.0, 0.5])
        assert len(balancer.state.weights.sharding.device_set) == 4


# Thousands of steps, of which one device shows as much.
for drawn, _ in getmembers(FunctionsContract, is_hypothesis_test):
    setattr(TestOverFourDevices, drawn, None)
# Here the test itself puts a state to the devices at every step, of which JAX keeps something.
TestOverFourDevices.test_ten_thousand_steps_neither_grow_nor_drift = None
