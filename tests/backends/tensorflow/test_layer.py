"""The Keras layer in TensorFlow's own loops, functions and checkpoints."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.balancers.contract import SCHEMES, STEPS

from loss_balance import AdaLoss, Constant

tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
from support.balancers.keras_tools import tensors

from loss_balance.backends.numpy import Balancer as Reference
from loss_balance.backends.tensorflow import Balancer

FUNCTIONS = {
    "eager": lambda f: f,
    "graph": tf.function,
    "xla": tf.function(jit_compile=True),
    "reduced": lambda f: tf.function(f, reduce_retracing=True),
}
with_each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def assert_state(balance, expected):
    found, expected = balance.export_state(), expected.export_state()
    for name in ("average", "weights", "step", "skipped", "pending"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def loop(balance, function):
    """A training step on three losses of one variable, and what it was traced with."""
    x, traces = tf.Variable(1.0), []

    @function
    def step(scales, mask=None):
        traces.append(scales)
        with tf.GradientTape() as tape:
            total = balance([scale * x for scale in tf.unstack(scales)], mask=mask)
        return total, tape.gradient(total, x)

    return step, traces


@with_each_function
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_loop_has_the_cores_weights_total_and_gradient(scheme, function):
    balance, state = Balancer(scheme), scheme.init(np)
    step, _ = loop(balance, function)
    for losses in STEPS:
        total, gradient = step(tf.constant(losses))
        state = scheme.update(state, np.array(losses), np)
        np.testing.assert_allclose(balance.export_state()["weights"], state.weights, rtol=1e-6)
        assert float(total) == pytest.approx(float(state.weights @ losses), rel=1e-5)
        assert float(gradient) == pytest.approx(float(total), rel=1e-5)
    assert balance.export_state()["step"] == len(STEPS)


@pytest.mark.parametrize("name", ["graph", "xla"])
def test_a_function_is_traced_once(name):
    step, traces = loop(Balancer(3), FUNCTIONS[name])
    for losses in STEPS * 3:
        step(tf.constant(losses))
    assert len(traces) == 1


@with_each_function
def test_a_mask_may_be_a_tensor(function):
    balance = Balancer(3)
    step, _ = loop(balance, function)
    losses = tf.constant([4.0, float("nan"), 0.5])
    total, _ = step(losses, tf.constant([True, False, True]))
    assert float(total) == pytest.approx(0.16875 * 4 + 0.5)
    state = balance.export_state()
    assert state["average"].tolist() == [4.0, -1.0, 0.5]
    assert state["skipped"].tolist() == [0, 0, 0]
    step(losses, tf.constant([True, True, True]))
    assert balance.export_state()["skipped"].tolist() == [0, 1, 0]


@with_each_function
def test_a_loss_may_be_absent(function):
    balance = Balancer(3)

    @function
    def step(near, far):
        return balance([near, None, far])

    assert float(step(tf.constant(4.0), tf.constant(0.5))) == pytest.approx(0.16875 * 4 + 0.5)


@pytest.mark.parametrize("scheme", [AdaLoss(3), Constant(3)])
def test_many_steps_in_one_loop_of_the_graph(scheme):
    balance, expected = Balancer(scheme), Balancer(scheme)
    for losses in STEPS:
        expected(tensors(losses))

    @tf.function
    def epoch(batches):
        for losses in batches:
            balance(losses)

    epoch(tf.constant(STEPS))
    for name, value in expected.export_state().items():
        np.testing.assert_allclose(balance.export_state()[name], value, rtol=1e-6)


def test_evaluation_and_training_are_two_functions_of_one_state():
    balance = Balancer(2)

    @tf.function
    def call(losses, training):
        return balance(losses, training=training)

    losses = tf.constant([4.0, 1.0])
    assert float(call(losses, False)) == 5.0
    assert float(call(losses, True)) == pytest.approx(0.2875 * 4 + 1)
    assert float(call(losses, False)) == pytest.approx(0.2875 * 4 + 1)
    assert balance.export_state()["step"] == 1


def test_a_negative_loss_in_a_function_is_counted():
    balance = Balancer(2)
    tf.function(balance)(tf.constant([1.0, -1.0]))
    assert balance.export_state()["skipped"].tolist() == [0, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@with_each_function
def test_low_precision_in_a_function(function, dtype):
    balance = Balancer(2)
    total = function(lambda losses: balance(losses))(tf.cast([4.0, 1.0], dtype))
    assert total.dtype.name == dtype
    assert balance.export_state()["average"].dtype == np.float32


@with_each_function
def test_update_and_priorities_may_be_tensors(function):
    balance, reference, traces = Balancer(3), Reference(3), []

    @function
    def step(losses, update, priorities):
        traces.append(losses)
        return balance(losses, update=update, priorities=priorities)

    for k, losses in enumerate(STEPS):
        ramp = [1.0, 0.5 * k, 0.0]
        total = step(tf.constant(losses), tf.constant(k % 2 == 1), tf.constant(ramp))
        expected = reference(losses, update=k % 2 == 1, priorities=ramp)
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
    assert_state(balance, reference)
    assert len(traces) == (1 if hasattr(step, "get_concrete_function") else len(STEPS))


@with_each_function
def test_calls_are_counted_in_a_function(function):
    balance, reference = Balancer(3, accumulate=2), Reference(3, accumulate=2)
    step = function(lambda losses: balance(losses))
    for losses in STEPS:
        assert float(step(tf.constant(losses))) == pytest.approx(float(reference(losses)), rel=1e-6)
    assert_state(balance, reference)
    assert balance.export_state()["step"] == len(STEPS) // 2


def test_micro_batches_in_one_loop_of_the_graph():
    balance, reference = Balancer(3, accumulate=2), Reference(3, accumulate=2)
    for losses in STEPS:
        reference(losses)

    @tf.function
    def epoch(batches):
        for losses in batches:
            balance(losses)

    epoch(tf.constant(STEPS))
    assert_state(balance, reference)


def test_variables_may_be_losses():
    losses = [tf.Variable(4.0), tf.Variable(1.0)]
    with tf.GradientTape() as tape:
        total = Balancer(2)(losses)
    assert [float(g) for g in tape.gradient(total, losses)] == pytest.approx([0.2875, 1.0])


def test_a_savedmodel_holds_the_weights(tmp_path):
    module = tf.Module()
    module.balance = Balancer(2)
    module.balance(tf.constant([4.0, 1.0]))
    module.step = tf.function(
        lambda losses: module.balance(losses),
        input_signature=[tf.TensorSpec((2,), tf.float32)],
    )
    tf.saved_model.save(module, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    losses = tf.constant([1.0, 1.0])
    for _ in range(3):
        assert float(loaded.step(losses)) == float(module.step(losses))
