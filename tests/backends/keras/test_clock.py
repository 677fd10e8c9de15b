"""The Keras layer's clock, priorities and first look, compiled too, on whatever backend it runs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from loss_balance import AdaLoss, Constant, LogLoss, Static

keras = pytest.importorskip("keras")
from keras import ops
from support.balancers.keras_tools import BACKEND, compiled, gradients, tensors

from loss_balance.backends.numpy import Balancer as Reference
from loss_balance.backends.tensorflow import Balancer, balance_model

STEPS = [[4.0, 1.0], [3.0, 2.0], [5.0, 0.5], [2.0, 1.5], [1.0, 8.0], [2.0, 1.0], [3.0, 3.0]]
SCHEME = AdaLoss(2, decay=0.5)


def assert_state(balancer, expected):
    found, expected = balancer.export_state(), expected.export_state()
    for name in ("average", "weights", "step", "skipped", "pending"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


# Compiled


def test_a_compiled_step_takes_new_priorities_and_update_without_tracing_again():
    balance, reference = Balancer(SCHEME), Reference(SCHEME)
    step = compiled(balance)
    for k, losses in enumerate(STEPS):
        ramp, now = [1.0, k / 5], k % 3 == 2
        traced = {"priorities": tensors(np.array(ramp)), "update": ops.convert_to_tensor(now)}
        total = step(tensors(losses), **traced)
        expected = reference(losses, priorities=ramp, update=now)
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
        assert_state(balance, reference)
    assert step.traces == (1 if BACKEND != "torch" else len(STEPS))


def test_compiled_steps_that_note_and_that_update_share_a_state():
    balance, reference = Balancer(SCHEME), Reference(SCHEME)
    functions = {now: compiled(balance, update=now) for now in (True, False)}
    for k, losses in enumerate(STEPS):  # an update is compiled before anything was noted
        now = k in (0, 3, 6)
        functions[now](tensors(losses))
        reference(losses, update=now)
        assert_state(balance, reference)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_a_compiled_step_counts_its_calls(accumulate):
    balance = Balancer(SCHEME, accumulate=accumulate)
    reference = Reference(SCHEME, accumulate=accumulate)
    step = compiled(balance)
    for k, losses in enumerate(STEPS):
        step(tensors(losses))
        reference(losses)
        assert_state(balance, reference)
        if k == 3:  # another function, the same clock
            step = compiled(balance)


def test_the_count_goes_on_where_a_call_says_whether_to_update():
    balance, reference = Balancer(SCHEME, accumulate=3), Reference(SCHEME, accumulate=3)
    for update, losses in zip([None, False, None, True, None, None, None], STEPS, strict=True):
        balance(tensors(losses), update=update)
        reference(losses, update=update)
        assert_state(balance, reference)
    assert balance.export_state()["step"] == 3


def test_a_step_compiled_after_losses_were_noted_counts_them():
    balance, reference = Balancer(SCHEME), Reference(SCHEME)
    for k, losses in enumerate(STEPS[:3]):
        update = None if k == 2 else False
        (compiled(balance) if k == 2 else balance)(tensors(losses), update=update)
        reference(losses, update=update)
    assert_state(balance, reference)


def test_a_step_compiled_before_losses_were_noted_is_never_silently_wrong():
    balance = Balancer(SCHEME)
    step = compiled(balance)
    step(tensors([4.0, 1.0]))
    if BACKEND == "torch":  # not compiled: it looks each time
        balance(tensors([2.0, 1.0]), update=False)
        step(tensors([4.0, 1.0]))
        assert balance.export_state()["average"].tolist() == [3.5, 1.0]
        return
    with pytest.warns(UserWarning, match=r"left out of it in functions compiled before .* update="):
        balance(tensors([2.0, 1.0]), update=False)


def test_a_state_with_waiting_losses_says_so_too_to_a_layer_with_compiled_steps():
    kept, balance = Balancer(SCHEME), Balancer(SCHEME)
    kept(tensors([2.0, 1.0]), update=False)
    compiled(balance)(tensors([4.0, 1.0]))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        balance.import_state(kept.export_state())
    assert any("left out" in str(w.message) for w in seen) == (BACKEND != "torch")


def test_a_frozen_layer_does_not_count_calls():
    balance = Balancer(SCHEME, accumulate=2)
    balance(tensors([4.0, 1.0]))
    balance.trainable = False
    balance(tensors([9.0, 9.0]))
    balance.trainable = True
    balance(tensors([2.0, 1.0]))
    state = balance.export_state()
    assert (int(state["step"]), state["average"].tolist()) == (1, [3.0, 1.0])


# Keras' own gradient accumulation


class Two(keras.Model):
    """Two kernels, two losses of its own."""

    def __init__(self, balancer):
        super().__init__()
        self.balancer = balancer

    def build(self, shape):
        self.kernels = self.add_weight(shape=(2,), initializer="ones", name="kernels")

    def call(self, x, training=None):
        y = x * self.kernels
        losses = [ops.mean(ops.square(y[:, i] - 3.0 * i)) for i in range(2)]
        self.add_loss(self.balancer(losses, training=training))
        return y


def two(accumulate, scheme):
    return Two(Balancer(scheme, accumulate=accumulate))


def two_outputs(accumulate, scheme):
    inputs = keras.Input((1,))
    first = keras.initializers.Constant(0.3)
    heads = [keras.layers.Dense(1, name=n, kernel_initializer=first)(inputs) for n in "ab"]
    return balance_model(keras.Model(inputs, heads), scheme, accumulate=accumulate)


def trained(make, accumulate, scheme, epochs):
    """After `epochs` updates on all of x, in `accumulate` micro-batches each."""
    x = np.linspace(0.5, 2.0, 8, dtype="float32").reshape(8, 1)
    model = make(accumulate, scheme)
    steps = None if accumulate == 1 else accumulate
    own = make is two
    model.compile(
        keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps),
        **({} if own else {"loss": ["mse", "mse"]}),
    )
    y = None if own else [3 * x, x**2]
    model.fit(x, y, batch_size=8 // accumulate, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("make", [two, two_outputs])
def test_with_keras_gradient_accumulation_averages_are_those_of_the_undivided_batch(make):
    scheme = AdaLoss(2, gamma=1.0, decay=0.5)  # all weights 1: training is the same too
    divided, whole = trained(make, 4, scheme, epochs=3), trained(make, 1, scheme, epochs=3)
    ours, theirs = divided.balancer.export_state(), whole.balancer.export_state()
    assert ours["step"] == theirs["step"] == 3
    np.testing.assert_allclose(ours["average"], theirs["average"], rtol=1e-5)
    for one, other in zip(divided.trainable_variables, whole.trainable_variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("make", [two, two_outputs])
def test_with_keras_gradient_accumulation_the_weights_of_an_update_are_those_of_its_batch(make):
    divided, whole = trained(make, 4, SCHEME, epochs=1), trained(make, 1, SCHEME, epochs=1)
    ours, theirs = divided.balancer.export_state(), whole.balancer.export_state()
    assert ours["weights"].min() < 0.9
    for name in ("average", "weights", "step", "pending"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)


# Priorities


def test_priorities_may_be_numbers_tensors_or_both():
    for given in ([1.0, 0.5], np.array([1.0, 0.5]), tensors(np.array([1.0, 0.5]))):
        assert float(Balancer(Constant(2))(tensors([4.0, 2.0]), priorities=given)) == 5.0
    mixed = [1.0, tensors([0.5])[0]]
    assert float(Balancer(Constant(2))(tensors([4.0, 2.0]), priorities=mixed)) == 5.0


def test_priorities_scale_the_gradient_and_leave_the_state_alone():
    balance, plain = Balancer(SCHEME, priorities=(0.0, 3.0)), Balancer(SCHEME)
    found = gradients(balance, lambda xs: xs, tensors([4.0, 1.0]))
    plain(tensors([4.0, 1.0]))
    weights = plain.export_state()["weights"]
    np.testing.assert_allclose(found, weights * [0.0, 3.0], rtol=1e-6)
    assert_state(balance, plain)


def test_a_config_has_priorities_and_accumulate():
    layer = Balancer(2, priorities=(1.0, 0.5), accumulate=3)
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (other.priorities, other.accumulate) == ((1.0, 0.5), 3)


# Absent, all of them


@pytest.mark.parametrize("form", ["list", "mask"])
def test_where_all_losses_are_absent_the_gradient_is_zero(form):
    balance = Balancer(2)

    def losses(xs):
        return [None, None] if form == "list" else ops.stack(xs)

    class Absent(keras.Layer):
        def __init__(self):
            super().__init__()
            self.balance = balance
            self.built = True

        def call(self, losses):
            mask = [False, False] if form == "mask" else None
            return self.balance(losses, mask=mask, training=True)

    if form == "mask" or BACKEND == "jax":
        assert gradients(Absent(), losses, tensors([4.0, 1.0])) == [0.0, 0.0]
    elif BACKEND == "torch":
        balance([None, None]).backward()
    else:
        import tensorflow as tf

        x = tf.Variable(1.0)
        with tf.GradientTape() as tape:
            total = balance([None, None])
        assert float(tape.gradient(total, x, unconnected_gradients="zero")) == 0.0
    assert balance.export_state()["step"] == 1


# The first look


def test_a_state_that_cannot_be_is_refused_until_reset():
    balance = Balancer(2)
    balance.state_average.assign([float("nan"), 1.0])
    for training in (False, True):
        with pytest.raises(ValueError, match=r"state must be possible, got average .* reset\(\)"):
            balance(tensors([4.0, 1.0]), training=training)
    balance.reset()
    assert float(balance(tensors([4.0, 1.0]))) == pytest.approx(0.2875 * 4 + 1)


def test_an_evaluation_takes_a_negative_loss_and_the_first_training_call_does_not():
    balance = Balancer(2)
    assert float(balance(tensors([-1.0, 3.0]), training=False)) == 2.0
    with pytest.raises(ValueError, match="losses must not be negative"):
        balance(tensors([-1.0, 3.0]))
    assert balance.export_state()["step"] == 0


def test_schemes_that_take_negative_losses_take_them_compiled_too():
    balance = Balancer(Static((1.0, 0.1)))
    for step in (balance, compiled(balance)):
        assert float(step(tensors([-1.0, 1.0]))) == pytest.approx(-0.9)
    assert balance.export_state()["skipped"].tolist() == [0, 0]


def test_no_state_has_another_weight_than_a_fixed_scheme():
    balance = Balancer(Static((5.0, 1.0)))
    balance.set_weights(Balancer(Static((1.0, 1.0))).get_weights())
    for step in (balance, compiled(balance)):
        assert float(step(tensors([1.0, 1.0]))) == 6.0
    assert balance.metrics()["loss_weight/0"] == 5.0


# Many at once


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX maps over the state of a Keras layer")
def test_stacked_states_train_side_by_side():
    import jax

    balance = Balancer(LogLoss(2, decay=0.5))
    losses = np.array([[4.0, 1.0], [1.0, 2.0], [3.0, 0.5]], "float32")
    state = [np.stack([v] * 3) for v in map(ops.convert_to_numpy, balance.non_trainable_variables)]

    def step(state, losses):
        return balance.stateless_call([], state, losses, training=True)

    for _ in range(2):
        totals, state = jax.jit(jax.vmap(step))(state, losses)
    for row, total in zip(losses, totals, strict=True):
        alone = Reference(LogLoss(2, decay=0.5))
        expected = [alone(row) for _ in range(2)][-1]
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
