"""JAX's learner and the runs it is trained in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("sklearn")
jax = pytest.importorskip("jax")
from support.experiments.learners import LearnerContract, batches, ignore
from support.experiments.run_contract import RunContract

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners import jax_step
from loss_balance.experiments.training.learners.jax_devices import Layout


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What `use_one_thread` writes ends with the test."""
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class TestJaxLearner(LearnerContract):
    framework = "jax"


class TestJaxRuns(RunContract):
    framework = "jax"


def test_one_compiled_step_serves_all_epochs_seeds_and_rates():
    jax_step.compiled.cache_clear()
    learners = [TestJaxLearner().learner(seed=seed) for seed in range(2)]
    for rate in (0.1, 0.01):
        for learner in learners:
            learner.train_epoch(batches(2), rate, ignore)
    assert learners[0]._step is learners[1]._step
    assert learners[0]._step._cache_size() == 1


def test_a_step_writes_into_the_buffers_it_was_given():
    learner = TestJaxLearner().learner()
    before = jax.tree.leaves(learner.carried)
    learner.train_epoch(batches(1), 0.1, ignore)
    assert all(array.is_deleted() for array in before)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread anyway")
def test_a_process_keeps_to_one_thread():
    code = """
import os
from loss_balance.experiments.training.learners import jax as jax_learner
{}
import jax.numpy as jnp
(jnp.ones((256, 256)) @ jnp.ones((256, 256))).block_until_ready()
names = [open(f"/proc/self/task/{{t}}/comm").read() for t in os.listdir("/proc/self/task")]
print(sum("XLAEigen" in name for name in names))
"""
    own = {"NPROC", "JAX_NUM_CPU_DEVICES"}  # a device has a thread at least
    environment = {name: value for name, value in os.environ.items() if name not in own}

    def threads(line):
        command = [sys.executable, "-c", code.format(line)]
        return int(subprocess.check_output(command, text=True, env=environment))

    assert threads("") > 1
    assert threads("jax_learner.use_one_thread()") == 1


def test_a_gpu_that_is_not_there_is_named():
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("there is one")
    with pytest.raises(UserError, match="no CUDA device is at hand: choose --device cpu"):
        Layout(Engine("jax", "cuda"))
