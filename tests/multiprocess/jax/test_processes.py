"""Two processes of `jax.distributed`, two devices each: one state."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.balancers.replica_steps import FOUR, SCHEME, SKIPPED, expected_weights
from support.distributed.jax_environment import environments
from support.distributed.processes import run_together

pytest.importorskip("jax")
from support.balancers import jax_processes

from loss_balance.backends.numpy import Balancer
from loss_balance.experiments.verification.oracle import Oracle


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By case, what each of the two saw."""
    folder = tmp_path_factory.mktemp("processes")
    ended = run_together(jax_processes.__file__, environments(), str(folder))
    assert [one.code for one in ended] == [0, 0], ended
    each = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return {name: [one[name] for one in each] for name in each[0]}


def test_a_batch_spread_over_processes_has_the_weights_of_numpy(found):
    first, second = found["spread_batch"]
    assert first == second
    balance = Balancer(SCHEME)
    for k, weights in enumerate(first):
        balance(np.linspace(0.5, 2.0 + k, 24, dtype=np.float32).reshape(8, 3).mean(0))
        np.testing.assert_allclose(weights, balance.weights, rtol=1e-6)


def test_absent_and_bad_losses_of_one_device_are_the_same_to_all(found):
    first, second = found["absent_and_bad"]
    assert first == second
    np.testing.assert_allclose(first["each"], expected_weights(FOUR), rtol=1e-6)
    assert first["skipped"] == SKIPPED
    assert first["step"] == len(FOUR)


def test_evaluation_leaves_the_state_and_one_process_may_read_it_alone(found):
    first, second = found["evaluated"]
    (expected,) = expected_weights(FOUR[:1])
    for one in (first, second):
        assert one["same"]
        assert one["total"] == pytest.approx(sum(expected))
    assert first["row"]["loss_weight/2"] == pytest.approx(expected[2])
    assert second["row"] is None


def test_an_imported_state_goes_on_over_all_processes(found):
    first, second = found["imported"]
    assert first == second
    oracle = Oracle(3, decay=0.5)
    oracle.update([4.0, 1.0, 0.5])
    expected = oracle.update(np.mean(FOUR[0], axis=0).tolist())
    np.testing.assert_allclose(first["weights"], expected, rtol=1e-6)
    assert first["step"] == 2


def test_devices_that_have_parted_are_found_within_a_process_and_by_comparing_between(found):
    for one in found["parted"]:
        assert "must be the same on all devices, got average [" in one["here"]
        assert "no error" not in one["compared"]
    assert found["parted"][0]["here"] != found["parted"][1]["here"]  # each saw its own two
