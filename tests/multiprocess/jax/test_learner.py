"""JAX's learner over several devices: the steps of one device, to rounding."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
jax = pytest.importorskip("jax")
from support.experiments.distributed import (
    HOW,
    assert_alike,
    assert_goes_on_with_others,
    steps_of,
)
from support.experiments.learners import DATA, batches, ignore, make

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.learners.jax_devices import Layout

DEVICES = 4  # that tests have


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What `use_one_thread` writes ends with the test."""
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@pytest.fixture(scope="module")
def four():
    """A learner after two steps, what it had before the second, how often each was compiled."""
    trained = learner(make("jax", devices=DEVICES), DATA)
    trained.train_epoch(batches(1), 0.1, ignore)
    before, compiled = jax.tree.leaves(trained.carried), trained._step._cache_size()
    trained.train_epoch(batches(1), 0.1, ignore)
    return trained, before, (compiled, trained._step._cache_size())


@pytest.mark.parametrize(("devices", "how"), [(2, "guided"), (2, "norms"), (4, "usual")])
def test_the_steps_are_those_of_one_device(devices, how):
    one, several = (steps_of(make("jax", devices=n, **HOW[how])) for n in (1, devices))
    assert_alike(several, one)


def test_every_device_has_a_part_of_the_batch(four):
    trained, *_ = four
    (batch,) = batches(1)
    for array in jax.tree.leaves(trained.layout.divided((batch.chosen, batch.draws))):
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [16] * DEVICES


def test_every_device_has_the_same_of_what_is_saved(four):
    trained, *_ = four
    for array in jax.tree.leaves(trained.carried):
        shards = [np.asarray(shard.data) for shard in array.addressable_shards]
        assert len(shards) == DEVICES
        for shard in shards:
            np.testing.assert_array_equal(shard, shards[0])


def test_a_step_is_compiled_once_and_writes_into_the_buffers_it_was_given(four):
    _, before, (first, second) = four
    assert first == second
    assert all(array.is_deleted() for array in before)


def test_images_that_come_with_their_batch_are_divided_too(four):
    (batch,) = batches(1)
    index = np.arange(len(batch.chosen), dtype=np.int32)
    images, labels = DATA.x_train[batch.chosen], DATA.y_train[batch.chosen]
    streamed = batch._replace(chosen=index, images=images, labels=labels)
    one, other = (learner(make("jax", devices=DEVICES), DATA) for _ in range(2))
    other.resident = None
    expected = one.train_epoch([batch], 0.1, ignore)
    np.testing.assert_allclose(other.train_epoch([streamed], 0.1, ignore), expected, rtol=1e-5)


def test_a_run_stopped_on_four_devices_goes_on_with_others(tmp_path):
    assert_goes_on_with_others("jax", DEVICES, (1, 2), tmp_path)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UserError, match=r"^--devices must be at most 4 here, got 8$"):
        Layout(Engine("jax", devices=8))


def test_batch_norm_is_over_the_whole_batch_alone():
    with pytest.raises(UserError, match=r"^--batch-norm local is of torch and tensorflow"):
        Engine("jax", devices=2, batch_norm="local")


@pytest.mark.parametrize("told", ["1", ""])
def test_a_process_of_its_own_makes_as_many_devices_as_it_needs(monkeypatch, told):
    code = """
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners.jax_devices import Layout
print(Layout(Engine("jax", devices=3)).whole.mesh.size, end="")
"""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", told or "-1")
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "3"
