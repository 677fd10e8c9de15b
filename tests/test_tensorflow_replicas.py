"""Two replicas under MirroredStrategy, different losses, one state."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from replica_steps import SKIPPED, TWO, expected_weights

pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
import keras_replicas


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "found.npz"
    command = [sys.executable, keras_replicas.__file__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(path)


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
