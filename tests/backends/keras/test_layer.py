"""The contract and the Keras layer, on whatever backend Keras runs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.balancers.contract import SCHEMES, STEPS, GradientContract
from support.balancers.contract_forks import Pass, chain

from loss_balance import AdaLoss, Constant, LinearSchedule

keras = pytest.importorskip("keras")
from keras import ops
from support.balancers.keras_tools import (
    BACKEND,
    as_float64,
    compiled,
    differentiated,
    gradients,
    tensors,
)

from loss_balance.backends.tensorflow import Balancer


@keras.saving.register_keras_serializable(package="tests")
class Holder(keras.Model):
    """A model that weighs two losses of its own, added with `add_loss`."""

    def __init__(self, balancer, hands_on=True):
        super().__init__()
        self.balancer = balancer
        self.hands_on = hands_on

    def build(self, shape):
        self.kernel = self.add_weight(shape=(), initializer="ones", name="kernel")

    def call(self, x, training=None):
        y = x * self.kernel
        loss = ops.mean(ops.square(y))
        told = {"training": training} if self.hands_on else {}
        self.add_loss(self.balancer([loss, 10.0 * loss], **told))
        return y

    def get_config(self):
        return {"balancer": keras.saving.serialize_keras_object(self.balancer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["balancer"]))


def holding(balancer):
    model = Holder(balancer)
    model.build(())
    return model


class TestKeras(GradientContract):
    a_step = 200  # caches of the frameworks come and go

    wide = "float64"

    def make(self, scheme, **options):
        return Balancer(scheme, **options)

    def step(self, balancer, losses, mask=None, dtype="float32", *, wrap=lambda x: x, **options):
        return ops.stop_gradient(balancer(wrap(tensors(losses, dtype)), mask=mask, **options))

    def stepping(self, balancer):
        step = compiled(balancer)
        return lambda losses: step(ops.convert_to_tensor(losses, "float32"))

    def gradient(self, balancer, losses, dtype="float32"):
        return gradients(balancer, lambda xs: xs, tensors(losses, dtype))

    def gradient_of_square(self, balancer, x, scales):
        return gradients(balancer, lambda xs: [s * xs[0] ** 2 for s in scales], tensors([x]))[0]

    def forked(self, balancer, x, heads, dtype, way, *, probe):
        def run(x, heads, *probes):
            fork = partial(balancer.fork, probe=probes[0] if probes else None)
            losses, read = chain(fork, x, heads, ops.tanh, ops.sum)
            return ops.sum(ops.stack(losses)), (ops.stack(losses), ops.stack(read))

        given = [ops.convert_to_tensor(t, dtype) for t in (x, heads)]
        given += [ops.zeros(3)] if probe else []
        (trunk, heads, *norms), kept = differentiated(run, given, compiled=way == "compiled")
        found = [*kept, trunk, heads, norms[0] if norms else None]
        return Pass(*(None if t is None else as_float64(t) for t in found))

    ways = ("usual", "compiled")

    def guided(self, balancer, logits, **options):
        def run(logits):
            total = balancer.guidance(logits, **options)
            return total, (total,)

        (gradient,), (total,) = differentiated(run, [ops.convert_to_tensor(logits)])
        return float(as_float64(total)), as_float64(gradient)

    def evaluate(self, balancer, losses):
        return float(balancer(tensors(losses), training=False))

    def dtype_of(self, total):
        return keras.backend.standardize_dtype(total.dtype)

    def save(self, balancer, path):
        holding(balancer).save_weights(f"{path}.weights.h5")

    def load(self, balancer, path):
        holding(balancer).load_weights(f"{path}.weights.h5")


@pytest.fixture
def trained():
    balance = Balancer(3)
    for losses in STEPS:
        balance(tensors(losses))
    return balance


def assert_same(left, right):
    for name, value in left.export_state().items():
        np.testing.assert_array_equal(right.export_state()[name], value, err_msg=name)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_config_makes_the_same_layer_without_its_state(scheme):
    layer = Balancer(scheme, names=["a", "b", "c"], dtype="float64", name="mine")
    layer(tensors(STEPS[0]))
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (other.scheme, list(other.names), other.name) == (scheme, ["a", "b", "c"], "mine")
    assert other.variable_dtype == "float64"
    assert_same(other, Balancer(scheme, names=["a", "b", "c"]))


def test_a_model_with_a_balancer_inside_is_saved_and_goes_on(tmp_path):
    model = Holder(Balancer(AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 9)), names=["a", "b"]))
    model.compile("sgd")
    x = np.ones((4, 1), "float32")
    model.fit(x, verbose=0)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert other.balancer.scheme == model.balancer.scheme
    for one in (model, other):
        one.fit(x, epochs=3, verbose=0)
    assert model.balancer.export_state()["step"] == 4
    assert_same(model.balancer, other.balancer)
    np.testing.assert_array_equal(model.kernel, other.kernel)


@pytest.mark.parametrize("hands_on", [True, False])
def test_inside_a_model_training_is_what_the_model_is_told(hands_on):
    model = Holder(Balancer(2), hands_on)
    model.compile("sgd")
    x = np.ones((4, 1), "float32")
    if BACKEND == "jax" and not hands_on:  # where Keras' own Dropout is silently inactive
        with pytest.raises(ValueError, match="training must be passed on here"):
            model.fit(x, verbose=0)
        return
    model(x)
    model.evaluate(x, verbose=0)
    model.predict(x, verbose=0)
    assert model.balancer.export_state()["step"] == 0
    model.fit(x, epochs=2, batch_size=2, verbose=0)
    assert model.balancer.export_state()["step"] == 4


def test_in_a_functional_model_losses_are_outputs_like_any():
    near, far = (keras.Input(batch_shape=(), name=name) for name in ("near", "far"))
    layer = Balancer(2, names=["near", "far"])
    model = keras.Model([near, far], layer({"near": near, "far": far}))
    losses = tensors([4.0, 1.0])
    assert float(model(losses, training=True)) == pytest.approx(0.2875 * 4 + 1)
    assert float(model([2 * x for x in losses])) == pytest.approx(2 * (0.2875 * 4 + 1))
    assert layer.export_state()["step"] == 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_the_state_is_float32_whatever_the_dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        balance = Balancer(2)
        total = balance(tensors([1.3, 2.7]))
    finally:
        keras.config.set_dtype_policy(before)
    assert balance.export_state()["average"].tolist() == [np.float32(1.3), np.float32(2.7)]
    assert keras.backend.standardize_dtype(total.dtype) == "float32"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32"])
def test_a_state_too_narrow_is_refused(dtype):
    with pytest.raises(ValueError, match=f"must be float32 or float64, got {dtype}"):
        Balancer(2, dtype=dtype)


def test_a_frozen_layer_keeps_its_state(trained):
    before = Balancer(3)
    before.import_state(trained.export_state())
    trained.trainable = False
    trained(tensors(STEPS[0]))
    assert_same(trained, before)
    trained.trainable = True
    trained(tensors(STEPS[0]))
    assert trained.export_state()["step"] == before.export_state()["step"] + 1


def test_nothing_of_the_state_is_trained(trained):
    assert trained.trainable_variables == []
    assert len(trained.non_trainable_variables) == len(trained.export_state())


def test_the_weights_are_there_as_a_tensor(trained):
    np.testing.assert_array_equal(
        ops.convert_to_numpy(trained.loss_weights), trained.export_state()["weights"]
    )


def test_the_weights_are_float32_in_a_layer_of_mixed_precision():
    class Reader(keras.Layer):
        def __init__(self):
            super().__init__(dtype="mixed_bfloat16")
            self.balance = Balancer(2)

        def call(self, x):
            return self.balance.loss_weights

    found = Reader()(tensors(np.ones(2)))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"


def test_keras_finds_no_metrics_of_its_own_in_the_layer(trained):
    assert list(trained.metrics) == []
    assert len(trained.metrics()) == 9  # weight, average and skips of three losses


@pytest.mark.parametrize("scheme", [Constant(3), AdaLoss(3)])
def test_gradients_accumulate_over_steps_of_any_scheme(scheme):
    class Thrice(keras.Layer):
        def __init__(self):
            super().__init__()
            self.balance = Balancer(scheme)
            self.built = True

        def call(self, losses):
            return sum(self.balance(losses, training=True) for _ in range(3))

    (found,) = gradients(Thrice(), lambda xs: [xs[0], 2 * xs[0], 3 * xs[0]], tensors([1.0]))
    assert found == pytest.approx(18.0 if scheme == Constant(3) else 3 * (1 + 1.05 + 1.1), rel=0.1)


def test_a_masked_nan_leaves_no_trace_in_the_gradient():
    balance = Balancer(3)

    def losses(xs):
        return ops.stack(xs)

    class Masked(keras.Layer):
        def __init__(self):
            super().__init__()
            self.balance = balance
            self.built = True

        def call(self, losses):
            return self.balance(losses, mask=[True, False, True], training=True)

    found = gradients(Masked(), losses, tensors([1.0, float("nan"), 2.0]))
    np.testing.assert_allclose(found, balance.export_state()["weights"] * [1, 0, 1])


def test_losses_of_mixed_dtype_are_promoted():
    losses = [tensors([1.0])[0], tensors([2.0], "bfloat16")[0]]
    assert keras.backend.standardize_dtype(Balancer(2)(losses).dtype) == "float32"


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["1", "2"], "each loss must be a tensor or number, loss 0 is a str"),
        (3.0, "losses must be an iterable of scalars, a mapping or a stacked array, got float"),
    ],
)
def test_what_is_no_loss_is_named(losses, message):
    with pytest.raises(ValueError, match=message):
        Balancer(2)(losses)


@pytest.mark.parametrize(
    "losses", [[4.0, 1.0], np.array([4.0, 1.0], np.float32), [np.float32(4.0), 1.0]]
)
def test_numbers_and_numpys_arrays_are_losses_too(losses):
    assert float(Balancer(AdaLoss(2, gamma=0.0))(losses)) == 2.0


def test_numbers_beside_tensors_are_constants():
    balance = Balancer(AdaLoss(2, gamma=0.0))
    assert float(balance([4.0, *tensors([1.0])])) == 2.0


@pytest.mark.parametrize("accumulate", [2, 3])
def test_every_nth_call_is_an_update(accumulate):
    by_count, by_hand = Balancer(2, accumulate=accumulate), Balancer(2)
    for k in range(2 * accumulate):
        losses = tensors([1.0 + k, 1.0])
        expected = by_hand(losses, update=(k + 1) % accumulate == 0)
        assert float(by_count(losses)) == float(expected)
        if k == accumulate:  # in the middle
            resumed = Balancer(2, accumulate=accumulate)
            resumed.import_state(by_count.export_state())
            by_count = resumed
    assert by_count.export_state()["step"] == 2
    np.testing.assert_array_equal(
        by_count.export_state()["average"], by_hand.export_state()["average"]
    )


def test_what_is_no_float_is_named():
    with pytest.raises(ValueError, match=r"losses must be real floating point, got .*int32"):
        Balancer(2)(ops.convert_to_tensor(np.array([1, 2]), "int32"))
