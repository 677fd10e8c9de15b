"""JAX on a device: what `benchmarks/gpu.sh checks` runs, and CI runs as a stand-in on a CPU.

Skipped without a GPU, unless LOSS_BALANCE_DEVICE says that any device will do.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from support.networks.numpy_network import Oracle as NumPyNetwork

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.contract import SCHEMES, STEPS
from support.balancers.jax_contract import FunctionsContract
from support.networks.contract import random_batch, random_weights

from loss_balance.backends.jax import balance, init
from loss_balance.experiments.verification.small_networks import CHAINS, SPARSE
from loss_balance.reference_models.jax import AnytimeNet

WANTED = os.environ.get("LOSS_BALANCE_DEVICE")
ON_GPU = jax.default_backend() == "gpu"
if not (WANTED or ON_GPU):
    pytest.skip("no GPU is at hand", allow_module_level=True)


def test_it_runs_where_it_was_asked_to():
    assert (WANTED == "cuda" or WANTED is None) == ON_GPU


class TestOnDevice(FunctionsContract):
    """The contract of balancers; JAX computes on its default device."""

    # Each example of them compiles anew, half a minute in all: a scan below takes their place.
    test_weights_equal_the_oracle_in_float64_to_1e_12 = None
    test_weights_equal_the_oracle_in_float32_to_1e_6 = None


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_scan_on_the_device_equals_the_core_in_float64(scheme):
    def step(state, losses):
        _, state = balance(losses, state, scheme)
        return state, state.weights

    _, found = jax.jit(lambda steps: jax.lax.scan(step, init(scheme), steps))(jnp.array(STEPS))
    state, expected = scheme.init(np), []
    for losses in STEPS:
        state = scheme.update(state, np.array(losses), np)
        expected.append(state.weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def filled(spec, weights):
    net = AnytimeNet(spec, seed=None)
    net.load_weights(weights)
    net.eval()
    return net


@pytest.mark.parametrize("spec", CHAINS, ids=lambda spec: spec.name)
def test_networks_agree_with_the_float64_oracle(spec):
    images, weights = random_batch(spec)[0], random_weights(spec)
    expected = NumPyNetwork(spec, weights).logits(images)
    with jax.default_matmul_precision("highest"):  # no TF32
        found = filled(spec, weights)(jnp.asarray(images))
    top = max(np.abs(x).max() for x in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * top


def test_weights_carried_over_from_torch_give_the_same_logits():
    folder = Path(os.environ.get("LOSS_BALANCE_CARRY", ""))
    if not (folder / "carried.npz").is_file():
        pytest.skip("LOSS_BALANCE_CARRY names no folder with weights from torch")
    with np.load(folder / "carried.npz") as weights, np.load(folder / "logits.npz") as logits:
        with jax.default_matmul_precision("highest"):
            found = filled(SPARSE, dict(weights))(jnp.asarray(random_batch(SPARSE)[0]))
        expected = [logits[f"arr_{k}"] for k in range(len(found))]
    top = max(np.abs(x).max() for x in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(np.asarray(ours) - theirs).max() < 2e-3 * top  # torch may use TF32
