"""Two replicas under MirroredStrategy, different losses, one state."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from support.balancers.replica_steps import SKIPPED, TWO, expected_weights

pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
from support.balancers import keras_replica_clock, keras_replicas
from support.balancers.keras_replica_clock import MICRO, WHOLE
from support.balancers.keras_replicas import X, Y

from loss_balance.experiments.verification.oracle import Oracle

CLOCKS = ("static", "traced", "counted", "imported")  # ways to make an update of three calls


def left_by(program, folder):
    path = folder / "found.npz"
    command = [sys.executable, program.__file__, str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return left_by(keras_replicas, tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return left_by(keras_replica_clock, tmp_path_factory.mktemp("clock"))


def merged(rows):
    """The mean of each loss over all that have it; NaN where one of them is bad."""
    means = []
    for values in zip(*rows, strict=True):
        there = [x for x in values if x is not None and x != 0.0]
        bad = any(not 0.0 <= x < math.inf for x in there)
        means.append(math.nan if bad else sum(there) / len(there) if there else None)
    return means


def test_replicas_hold_identical_weights_while_their_losses_differ(found):
    first, second = np.moveaxis(found["steps"], 1, 0)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected_weights(TWO), rtol=1e-6)


def test_every_variable_is_the_same_on_all_replicas(found):
    for name in ("average", "weights", "step", "skipped"):
        first, second = found[name]
        np.testing.assert_array_equal(first, second)
    assert found["step"].tolist() == [5, 5]
    assert found["skipped"][0].tolist() == SKIPPED


def test_fit_on_two_replicas_is_fit_on_one(found):
    names = [name for name in found.files if name.startswith("one/")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_allclose(found[name.replace("one", "two")], found[name], rtol=1e-5)


def test_a_regulariser_never_enters_the_averages_of_replicas(found):
    by_hand = [np.mean((X @ [[0.3], [0.3]] - Y[0]) ** 2), np.mean(abs(X @ [[0.3], [0.3]] - Y[1]))]
    for strength in (0.0, 100.0):
        np.testing.assert_allclose(found[f"averages/{strength}"], by_hand, rtol=1e-5)


@pytest.mark.parametrize("way", CLOCKS)
def test_micro_batches_of_all_replicas_make_one_update(clock, way):
    oracle = Oracle(2, decay=0.5)
    weights = [1.0, 1.0]
    for k, used in enumerate(clock[f"{way}/used"]):
        if k % 3 == 2:
            weights = oracle.update(merged([row for part in MICRO[k - 2 : k + 1] for row in part]))
        np.testing.assert_allclose(used, [weights] * 2, rtol=1e-6)
    assert clock[f"{way}/step"] == 2
    assert clock[f"{way}/skipped"].tolist() == oracle.skipped == [1, 1]
    assert not clock[f"{way}/pending"].any()


def test_what_waits_on_all_replicas_is_exported_together(clock):
    assert clock["static/waiting"].tolist() == [[12.0, 6.0], [3.0, 3.0]]


def test_replicas_speak_once_an_update_and_not_at_all_where_losses_are_noted(clock):
    noting, moving, plain = clock["static/collectives"].tolist()
    assert (noting, moving, plain) == (0, 2, 2)  # of two replicas together


def test_a_bad_day_of_one_replica_is_the_same_to_all(clock):
    oracle = Oracle(2, decay=0.5)
    for used, losses in zip(clock["whole/used"], WHOLE, strict=True):
        np.testing.assert_allclose(used, [oracle.update(merged(losses))] * 2, rtol=1e-6)
    assert clock["whole/step"] == len(WHOLE)
    assert clock["whole/skipped"].tolist() == oracle.skipped


def test_an_eager_first_step_refuses_a_negative_loss_of_one_replica_on_all(clock):
    assert "losses must not be negative (AdaLoss" in str(clock["eager/AdaLoss"])
    assert clock["eager/AdaLoss/step"] == 0
    assert str(clock["eager/Constant"]) == ""
    assert clock["eager/Constant/step"] == 1
