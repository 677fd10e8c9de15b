"""docs/distributed/jax.md: its blocks on four devices, and in two processes."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from support.distributed.jax_environment import environments
from support.distributed.processes import run_together
from support.docs.linear import by_hand, drawn
from support.docs.pages import blocks, run

jax = pytest.importorskip("jax")
pytest.importorskip("orbax.checkpoint")
from support.docs import jax_hosts

PAGE = "distributed/jax.md"


def assert_as_by_hand(module):
    w, average = by_hand(drawn())
    np.testing.assert_allclose(module["run"]["params"]["w"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(module["run"]["balance"].average, average, rtol=1e-5)


@pytest.mark.parametrize("names", [["one"], ["one", "jit"], ["one", "jit", "shard-map"]])
def test_each_way_of_the_page_trains_as_one_device_does(names):
    module = run(PAGE, *names)
    assert_as_by_hand(module)
    devices = module["run"]["balance"].weights.sharding.device_set
    assert len(devices) == (1 if names == ["one"] else 4)


def test_what_goes_wrong_without_axis_name_is_said(capsys):
    run(PAGE, "one", "jit", "parted")
    assert "must be the same on all devices, got average [" in capsys.readouterr().out


def test_every_block_is_run():
    assert list(blocks(PAGE)) == ["one", "jit", "shard-map", "parted", "hosts"]


def hosts(folder, *victim):
    """How two processes of two devices each ended, started in that folder."""
    folder.mkdir(exist_ok=True)
    return run_together(jax_hosts.__file__, environments(), *victim, folder=folder)


def test_a_run_of_two_processes_survives_that_one_is_killed(tmp_path):
    undisturbed = hosts(tmp_path / "undisturbed")
    assert [one.code for one in undisturbed] == [0, 0], undisturbed
    killed = hosts(tmp_path / "killed", "1")
    assert killed[1].code == -signal.SIGKILL
    assert killed[0].code == -signal.SIGABRT, killed[0].said  # by itself, before it was ended
    assert "JAX distributed service detected fatal errors" in killed[0].said
    assert not (tmp_path / "killed" / "balance.npz").exists()
    again = hosts(tmp_path / "killed")
    assert [one.code for one in again] == [0, 0], again
    steps = again[0].said.split()[-1]
    assert steps in ("6", "9")  # of 12: the checkpoint of step 5 may not have been whole in time
    found, expected = (
        np.load(tmp_path / name / "balance.npz") for name in ("killed", "undisturbed")
    )
    assert set(found.files) == set(expected.files)
    for name in found.files:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["average"], by_hand(drawn())[1], rtol=1e-5)
