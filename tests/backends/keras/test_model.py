"""`balance_model` under compile and fit, on whatever backend Keras runs."""

from __future__ import annotations

import numpy as np
import pytest

from loss_balance import AdaLoss, Linear, LinearSchedule, Static

keras = pytest.importorskip("keras")
from keras import ops
from support.balancers.keras_tools import BACKEND

from loss_balance.backends.tensorflow import balance_model

SCHEME = AdaLoss(2, gamma=0.01, decay=0.5)
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = [10.0 * X.sum(axis=1, keepdims=True), 0.1 * X[:, :1]]
COMPILED = [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}]
if BACKEND == "torch":  # has no steps_per_execution, and its jit is torch.compile's own matter
    COMPILED = COMPILED[:2]


def two_heads(regularizer=None, outputs=list):
    """Two linear heads, the same first weights every time, the first one regularised."""
    x = keras.Input((3,))
    first = keras.initializers.Constant(0.5)
    heads = {
        name: keras.layers.Dense(1, name=name, kernel_initializer=first, kernel_regularizer=r)(x)
        for name, r in (("near", regularizer), ("far", None))
    }
    return keras.Model(x, heads if outputs is dict else list(heads.values()))


def kernels(model):
    return [np.array(layer.get_weights()[0]) for layer in model.layers if layer.get_weights()]


def fit(model, **options):
    """Whole-batch epochs, so that an epoch's logs are those of one step."""
    options = {"batch_size": len(X), "shuffle": False, "verbose": 0, **options}
    return model.fit(options.pop("x", X), options.pop("y", Y), **options).history


def balanced(scheme=SCHEME, inner=None, loss=("mse", "mae"), names=None, **options):
    model = balance_model(inner or two_heads(), scheme, names)
    model.compile(keras.optimizers.SGD(0.01), loss=loss, **options)
    return model


def assert_same_state(left, right):
    for name, value in left.balancer.export_state().items():
        np.testing.assert_array_equal(right.balancer.export_state()[name], value, err_msg=name)


@pytest.mark.parametrize("options", COMPILED, ids=repr)
@pytest.mark.parametrize("scheme", [SCHEME, Linear(2), Static((2.0, 0.0))], ids=repr)
def test_every_step_has_the_cores_weights_and_their_sum(scheme, options):
    model = balanced(scheme, two_heads(keras.regularizers.L2(0.1)), loss=["mse", "mae"], **options)
    state = scheme.init(np)
    for _ in range(4):
        own = 0.1 * float((kernels(model.model)[0] ** 2).sum())
        logs = {name: values[0] for name, values in fit(model).items()}
        losses = np.array([logs["near_loss"], logs["far_loss"]], np.float64)
        state = scheme.update(state, losses, np)
        shown = [logs["loss_weight/near"], logs["loss_weight/far"]]
        np.testing.assert_allclose(shown, state.weights, rtol=1e-6)
        np.testing.assert_allclose(
            model.balancer.export_state()["weights"], state.weights, rtol=1e-6
        )
        assert logs["loss"] == pytest.approx(state.weights @ losses + own, rel=1e-5)
    assert model.balancer.export_state()["step"] == 4


@pytest.mark.parametrize("options", COMPILED, ids=repr)
def test_other_weights_change_the_loss_and_the_gradients_of_a_compiled_step(options):
    """Assigning to compiled `loss_weights` does nothing on some backends."""
    model = balanced(AdaLoss(2, update_every=1000), **options)  # keeps what is assigned
    start = model.get_weights()
    moves, losses = [], []
    for weights in ([1.0, 1.0], [1.0, 100.0], [3.0, 0.0]):  # after the first, all is compiled
        model.set_weights(start)
        model.balancer.state_weights.assign(np.array(weights, "float32"))
        logs = fit(model)
        losses.append((logs["loss"][0], logs["near_loss"][0], logs["far_loss"][0]))
        after = kernels(model.model)
        moves.append([0.5 - kernel for kernel in after])
    (total, near, far), second, third = losses
    assert total == pytest.approx(near + far, rel=1e-5)
    assert second == pytest.approx((near + 100 * far, near, far), rel=1e-5)
    assert third == pytest.approx((3 * near, near, far), rel=1e-5)
    assert np.abs(moves[0][1]).min() > 1e-4
    np.testing.assert_allclose(moves[1], [moves[0][0], 100 * moves[0][1]], rtol=1e-2)
    np.testing.assert_allclose(moves[2], [3 * moves[0][0], 0 * moves[0][1]], rtol=1e-2)


def test_no_gradient_flows_through_the_weights():
    """The step is -rate * weight * gradient, though the weight depends on the loss."""
    model, plain = balanced(AdaLoss(2, gamma=0.0, decay=0.0)), two_heads()
    plain.compile(keras.optimizers.SGD(0.01), loss=["mse", "mae"])
    fit(model)
    fit(plain)
    weights = model.balancer.export_state()["weights"]
    moved = [0.5 - k for k in kernels(model.model)]
    expected = [w * (0.5 - k) for w, k in zip(weights, kernels(plain), strict=True)]
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-6)


def test_history_has_what_the_plain_model_has_and_the_weights():
    model, plain = balanced(metrics={"far": ["mae"]}), two_heads()
    plain.compile(loss=["mse", "mae"], metrics={"far": ["mae"]})
    shown = {f"loss_{what}/{name}" for what in ("weight", "skipped") for name in ("near", "far")}
    shown |= {"loss_sum"}
    shown |= {f"val_{name}" for name in shown}
    expected = set(fit(plain, validation_data=(X, Y))) | shown
    assert set(fit(model, validation_data=(X, Y))) == expected


def test_the_shown_weight_is_the_epochs_mean():
    shown, weights = set(), []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            shown.update(logs)
            weights.append(self.model.balancer.metrics()["loss_weight/near"])

    model = balanced(run_eagerly=True)
    logs = fit(model, batch_size=4, callbacks=[Watch()])
    assert len(weights) == 4
    assert logs["loss_weight/near"] == [pytest.approx(np.mean(weights))]
    # One more number in each batch's logs, not one for each loss: Keras looks at all in each step.
    assert shown == {"loss", "near_loss", "far_loss", "loss_sum"}


def test_evaluate_and_predict_leave_the_state_and_use_it():
    model = balanced()
    fit(model, epochs=3)
    before = model.balancer.export_state()
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    losses = np.array([logs["near_loss"], logs["far_loss"]])
    assert logs["loss"] == pytest.approx(float(before["weights"] @ losses), rel=1e-5)
    assert logs["loss_weight/near"] == pytest.approx(before["weights"][0])
    both = (one.predict(X, verbose=0) for one in (model, model.model))
    for mine, inner in zip(*both, strict=True):
        np.testing.assert_array_equal(mine, inner)
    for name, value in model.balancer.export_state().items():
        np.testing.assert_array_equal(value, before[name])


def test_evaluate_begins_its_list_as_the_plain_model_does():
    model, plain = balanced(), two_heads()
    plain.compile(loss=["mse", "mae"])
    expected = plain.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0)[: len(expected)], expected)


@pytest.mark.parametrize("both", [False, True])
def test_sample_weights_reach_the_losses(both):
    model, plain = balanced(), two_heads()
    plain.compile(keras.optimizers.SGD(0.0), loss=["mse", "mae"])
    weight = np.linspace(0, 2, len(X), dtype="float32")
    given = [weight, weight[::-1].copy()] if both else weight
    found = fit(model, sample_weight=given)
    expected = fit(plain, sample_weight=given)
    unweighted = fit(plain)
    for name in ("near_loss", "far_loss"):
        assert found[name] == pytest.approx(expected[name])
        assert found[name] != pytest.approx(unweighted[name])
    average = model.balancer.export_state()["average"]
    assert average.tolist() == pytest.approx([found["near_loss"][0], found["far_loss"][0]])


def test_layers_that_differ_in_training_do():
    x = keras.Input((3,))
    h = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization(name="norm")(x))
    inner = keras.Model(x, [keras.layers.Dense(1, name=name)(h) for name in ("near", "far")])
    model = balanced(inner=inner)
    norm = inner.get_layer("norm")
    mean = ops.convert_to_numpy(norm.moving_mean)
    model.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(norm.moving_mean), mean)
    fit(model)
    assert np.abs(ops.convert_to_numpy(norm.moving_mean) - mean).min() > 0
    silent, off, on = (
        ops.convert_to_numpy(model(X, **told)[0])
        for told in ({}, {"training": False}, {"training": True})
    )
    np.testing.assert_array_equal(silent, off)
    assert np.abs(on - off).max() > 1e-3


@pytest.mark.parametrize("lazy", [False, True])
def test_a_saved_model_goes_on_as_if_nothing_had_happened(tmp_path, lazy):
    inner = Lazy() if lazy else two_heads()
    scheme = AdaLoss(2, gamma=LinearSchedule(1.0, 0.1, 6), decay=0.5, update_every=2)
    model = balance_model(inner, scheme, names=["near", "far"])
    model.compile(
        "adam",
        loss=[keras.losses.MeanSquaredError(reduction="sum"), "mae"],
        metrics=[["mae"], ["mse"]],
    )
    fit(model, epochs=3)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert other.balancer.scheme == scheme
    assert_same_state(model, other)
    assert fit(model, epochs=3) == fit(other, epochs=3)
    assert_same_state(model, other)
    for mine, its in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_model_that_was_never_compiled_is_saved_too(tmp_path):
    balance_model(two_heads(), SCHEME).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.compile("sgd", loss=["mse", "mae"])
    assert list(fit(model)) == list(fit(balanced()))


def test_callbacks_and_weight_files_hold_the_state(tmp_path):
    model, other = balanced(), balanced()
    path = tmp_path / "best.weights.h5"
    saver = keras.callbacks.ModelCheckpoint(
        path, save_best_only=True, save_weights_only=True, monitor="loss_weight/far", mode="max"
    )
    fit(model, epochs=2, callbacks=[saver])
    model.save_weights(path)
    other.load_weights(path)
    assert_same_state(model, other)


def test_the_inner_model_is_the_trained_one():
    inner = two_heads()
    model = balanced(inner=inner)
    fit(model)
    assert model.model is inner
    assert np.abs(kernels(inner)[0] - 0.5).min() > 0


@keras.saving.register_keras_serializable(package="tests")
class Lazy(keras.Model):
    """Two heads whose outputs are a dict or a list, without names, built at the first call."""

    def __init__(self, outputs="list", **options):
        super().__init__(**options)
        self.outputs_as = outputs
        first = keras.initializers.Constant(0.5)
        self.far = keras.layers.Dense(1, kernel_initializer=first)
        self.near = keras.layers.Dense(1, kernel_initializer=first)

    def call(self, x):
        heads = {"near": self.near(x), "far": self.far(x)}
        return heads if self.outputs_as == "dict" else list(heads.values())

    def get_config(self):
        return {"outputs": self.outputs_as}


def test_a_dict_of_losses_has_the_order_of_the_names():
    expected = balanced(Linear(2))
    fit(expected)
    by_name = {"far": "mae", "near": "mse"}
    targets = {"far": Y[1], "near": Y[0]}
    for inner in (Lazy("dict"), two_heads(outputs=dict)):
        model = balanced(Linear(2), inner, loss=by_name, names=["near", "far"])
        logs = fit(model, y=targets)
        assert logs["loss_weight/far"] == [1.0]
        near, far = (getattr(inner, n, None) or inner.get_layer(n) for n in ("near", "far"))
        found = [layer.get_weights()[0] for layer in (near, far)]
        np.testing.assert_allclose(found, kernels(expected.model), rtol=1e-5)


def test_a_functional_model_takes_a_dict_of_losses_by_the_names_of_its_outputs():
    expected = fit(balanced(Linear(2), loss=["mse", "mae"]))
    assert fit(balanced(Linear(2), loss={"far": "mae", "near": "mse"})) == expected


def test_one_loss_for_all_outputs():
    expected = fit(balanced(Linear(2), loss=["mse", "mse"]))
    assert fit(balanced(Linear(2), loss="mse")) == expected


def test_one_name_that_means_another_loss_for_each_output():
    x = keras.Input((3,))
    sizes = {"two": 1, "five": 5}
    inner = keras.Model(
        x,
        [
            keras.layers.Dense(n, activation="softmax" if n > 1 else "sigmoid", name=name)(x)
            for name, n in sizes.items()
        ],
    )
    y = [(X[:, :1] > 0).astype("float32"), np.arange(len(X)) % 5]
    start = inner.get_weights()
    found = fit(balanced(inner=inner, loss="crossentropy"), y=y)
    inner.set_weights(start)
    losses = ["binary_crossentropy", "sparse_categorical_crossentropy"]
    assert fit(balanced(inner=inner, loss=losses), y=y) == found


def test_an_output_without_a_loss_is_left_out():
    inner = two_heads()
    inner.get_layer("near").trainable = False  # or TensorFlow warns of its lack of a gradient
    model = balanced(AdaLoss(1), inner, loss=[None, "mae"], names=["far"])
    logs = fit(model)
    assert logs["loss_weight/far"] == [1.0]
    assert model.balancer.export_state()["average"].tolist() == [pytest.approx(logs["loss"][0])]


def test_a_single_output_is_balanced_alone():
    x = keras.Input((3,))
    model = balanced(AdaLoss(1), keras.Model(x, keras.layers.Dense(1, name="only")(x)), loss="mse")
    logs = fit(model, y=Y[0])
    assert logs["loss_weight/only"] == [1.0]
    assert model.balancer.export_state()["average"].tolist() == [pytest.approx(logs["loss"][0])]


def test_a_bad_loss_is_counted_and_kept_out():
    model = balanced(SCHEME)
    fit(model)
    before = model.balancer.export_state()
    logs = fit(model, y=[Y[0] * np.float32("nan"), Y[1]])
    after = model.balancer.export_state()
    assert np.isnan(logs["loss"]).all()
    assert after["skipped"].tolist() == [1, 0]
    assert after["average"][0] == before["average"][0]
    assert np.isfinite(after["weights"]).all()
    assert [logs["loss_skipped/near"], logs["loss_skipped/far"]] == [[1.0], [0.0]]


def test_mixed_precision_scales_the_loss_and_not_the_state():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = two_heads()
    finally:
        keras.config.set_dtype_policy(before)
    model = balanced(inner=inner)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    logs = fit(model)
    average = model.balancer.export_state()["average"]
    assert average.dtype == np.float32
    assert average.tolist() == pytest.approx([logs["near_loss"][0], logs["far_loss"][0]])


def test_loss_weights_are_refused():
    with pytest.raises(ValueError, match=r"what the scheme sets: use Static.*got \[1.0, 2.0\]"):
        balanced(loss_weights=[1.0, 2.0])


@pytest.mark.parametrize(
    ("scheme", "inner", "loss", "message"),
    [
        (2, two_heads, {"near": "mse", "low": "mae"}, r"keys \['near', 'far'\] in loss dict"),
        (3, two_heads, ["mse", "mae"], r"expected 3 losses, got 2: \['near', 'far'\]"),
        (2, two_heads, [None, "mae"], r"expected 2 losses, got 1: \['far'\]"),
        (2, two_heads, ["mse", keras.losses.MeanSquaredError(reduction=None)], "must be a scalar"),
    ],
)
def test_losses_that_are_not_the_schemes_are_named(scheme, inner, loss, message):
    with pytest.raises(ValueError, match=message):
        fit(balanced(scheme, inner(), loss=loss))


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="names must be 2 distinct strings"):
        balance_model(two_heads(), 2, names=["near"])
    for inner, names in ((two_heads(outputs=dict), ["one", "two"]), (two_heads(), ["near", "low"])):
        with pytest.raises(ValueError, match=r"names must be those of the losses, \['near', 'far'"):
            fit(balanced(inner=inner, loss="mse", names=names), y=targets(inner))


def targets(inner):
    return dict(zip(("near", "far"), Y, strict=True)) if isinstance(inner.output, dict) else Y
