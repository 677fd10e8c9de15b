"""Two worker processes under MultiWorkerMirroredStrategy: one state."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from support import balancers
from support.balancers.replica_steps import SKIPPED, TWO, expected_weights
from support.distributed.processes import run_together
from support.distributed.tensorflow_environment import environments

pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

# Not imported here: its strategy is made when it is.
PROGRAM = Path(balancers.__path__[0]) / "keras_workers.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    ended = run_together(str(PROGRAM), environments(), str(folder), timeout=180)
    assert [one.code for one in ended] == [0, 0], ended
    return [np.load(folder / f"{index}.npz") for index in range(2)]


def test_workers_hold_identical_weights_while_their_losses_differ(found):
    first, second = found
    np.testing.assert_array_equal(first["steps"], second["steps"])
    np.testing.assert_allclose(first["steps"], expected_weights(TWO), rtol=1e-6)
    for name in ("average", "weights", "step", "skipped"):
        np.testing.assert_array_equal(first[f"state/{name}"], second[f"state/{name}"])
    assert first["state/skipped"].tolist() == SKIPPED


def test_one_worker_may_log_export_and_save_alone(found):
    """A collective of one would meet the other's next step, or wait for ever."""
    first, second = found
    np.testing.assert_allclose(first["alone"][:3], first["steps"][2], rtol=1e-6)
    assert "alone" not in second.files


def test_evaluation_leaves_the_state_of_all_workers_as_it_is(found):
    assert all(one["same"] for one in found)


def test_what_waits_on_all_workers_is_exported_and_used_together(found):
    for one in found:
        np.testing.assert_array_equal(one["pending"][0], np.sum(TWO[0], axis=0))
        np.testing.assert_array_equal(one["pending"][1], [2.0, 2.0, 2.0])
        np.testing.assert_allclose(one["update"], expected_weights(TWO[:1])[0], rtol=1e-6)
