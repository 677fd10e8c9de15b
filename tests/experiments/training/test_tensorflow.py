"""TensorFlow's learner and the runs it is trained in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")
tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

import keras
from support.experiments.learners import DATA, LearnerContract, batches, ignore, make
from support.experiments.run_contract import RunContract

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners.keras import TensorFlowLearner, exit_losses

WORKER = """
from support.experiments.learners import DATA, batches, ignore, make
from loss_balance.experiments.training.learners.by_framework import learner

learner(make("tensorflow"), DATA).train_epoch(batches(1), 0.1, ignore)
"""


def engine(**options):
    return replace(make("tensorflow"), engine=Engine("tensorflow", **options))


class TestTensorFlowLearner(LearnerContract):
    framework = "tensorflow"

    def test_one_graph_serves_all_rates_and_one_all_batches_in_evaluation(self):
        learner, traced = self.learner(), []

        def call(*args, given=learner.net.call, **options):
            traced.append(options["training"])
            return given(*args, **options)

        learner.net.call = call
        for rate in (0.1, 0.01):
            learner.train_epoch(batches(2), rate, ignore)
        learner.evaluate([(DATA.x_test[:count], DATA.y_test[:count]) for count in (7, 50, 1)])
        assert traced == [True, False]

    def test_xla_trains_alike(self):
        plain, compiled = (TensorFlowLearner(engine(compiled=c), DATA) for c in (False, True))
        found = [learner.train_epoch(batches(4), 0.1, ignore) for learner in (plain, compiled)]
        np.testing.assert_allclose(*found, rtol=1e-4)
        (batch,) = batches(1)
        graphs = [
            learner._step.get_concrete_function(*learner._inputs(batch), tf.constant(0.1))
            for learner in (plain, compiled)
        ]
        by_xla = [graph.function_def.attr["_XlaMustCompile"].b for graph in graphs]
        assert by_xla == [False, True]

    def test_keras_own_policy_stays_as_it_was(self):
        before = keras.config.dtype_policy()
        learner = self.learner(precision="bfloat16")
        learner.train_epoch(batches(1), 0.1, ignore)
        assert keras.config.dtype_policy() is before
        assert learner.net.compute_dtype == "bfloat16"


class TestTensorFlowRuns(RunContract):
    framework = "tensorflow"


def test_a_worker_says_nothing_whatever_keras_is_told_elsewhere():
    told = {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, env=kept | told, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="must run on TensorFlow here, got jax: see KERAS_BACKEND"):
        TensorFlowLearner(engine(), DATA)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(UserError, match="no CUDA device is at hand: choose --device cpu"):
        TensorFlowLearner(engine(device="cuda"), DATA)


def test_exit_losses_are_the_cross_entropies_one_by_one():
    logits = np.random.default_rng(0).standard_normal((3, 5, 7), np.float32)
    labels = np.array([0, 6, 3, 3, 1])
    expected = [
        keras.losses.sparse_categorical_crossentropy(labels, x, from_logits=True) for x in logits
    ]
    np.testing.assert_allclose(exit_losses(logits, labels), expected, rtol=1e-5)
