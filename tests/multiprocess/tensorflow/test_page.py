"""docs/distributed/tensorflow.md: its blocks on two devices, and in two workers."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from support.distributed.processes import run_together
from support.distributed.tensorflow_environment import environments
from support.docs.linear import by_hand, drawn
from support.docs.pages import blocks

pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
from support.docs import tensorflow_pages

LIMIT = 180  # seconds: three imports of TensorFlow, each 5 to 25 s where cores are shared


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored")
    (ended,) = run_together(
        tensorflow_pages.__file__, [{}], "mirrored", folder=folder, timeout=LIMIT
    )
    assert ended.code == 0, ended.said
    return np.load(folder / "mirrored.npz")


def test_fit_on_two_replicas_is_fit_on_one_with_regularisers(mirrored):
    names = [name for name in mirrored.files if name.startswith("model/")]
    assert len(names) > 10
    for name in names:
        other = mirrored[name.replace("model", "mirrored")]
        np.testing.assert_allclose(other, mirrored[name], rtol=1e-5, atol=1e-7)


def test_a_loop_on_two_replicas_trains_as_one_device_does(mirrored):
    w, average = by_hand(mirrored["batches"])
    np.testing.assert_allclose(mirrored["w"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mirrored["loop/average"], average, rtol=1e-5)


def workers(folder, victim="none"):
    """How two workers ended, started in that folder."""
    folder.mkdir(exist_ok=True)
    program, each = tensorflow_pages.__file__, environments()
    return run_together(program, each, "workers", victim, folder=folder, timeout=LIMIT)


def test_a_run_of_two_workers_survives_that_one_is_killed(tmp_path):
    undisturbed = workers(tmp_path / "undisturbed")
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    killed = workers(tmp_path / "killed", "1")
    assert killed[1].code == -signal.SIGKILL
    assert killed[0].code == 1, killed[0].said  # by itself, before it was ended
    assert "UnavailableError" in killed[0].said
    assert not (tmp_path / "killed" / "balance.npz").exists()
    again = workers(tmp_path / "killed")
    assert [one.code for one in again] == [0, 0], again
    assert all(one.said.endswith("steps 6\n") for one in again)  # of 12
    found, expected = (
        np.load(tmp_path / name / "balance.npz") for name in ("killed", "undisturbed")
    )
    assert set(found.files) == set(expected.files)
    for name in found.files:
        np.testing.assert_array_equal(found[name], expected[name])
    w, average = by_hand(drawn())
    np.testing.assert_allclose(found["w"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["average"], average, rtol=1e-5)


def test_every_block_is_run():
    names = ["fit", "mirrored-fit", "mirrored-loop", "workers"]
    assert list(blocks("distributed/tensorflow.md")) == names
