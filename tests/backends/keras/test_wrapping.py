"""What `balance_model` takes, refuses and leaves as it was: the model it is given."""

from __future__ import annotations

import io

import numpy as np
import pytest

from loss_balance import AdaLoss, Linear

keras = pytest.importorskip("keras")
from loss_balance.backends.tensorflow import balance_model

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = [X[:, :1], 0.1 * X[:, 1:2]]


def two_heads(kind=keras.Model, **options):
    x = keras.Input((3,))
    return kind(x, [keras.layers.Dense(1, name=name)(x) for name in "ab"], **options)


def test_the_models_own_attributes_are_there():
    inner = two_heads()
    model = balance_model(inner, 2)
    assert model.inputs == inner.inputs
    assert model.outputs == inner.outputs
    assert model.get_layer("a") is inner.get_layer("a")
    assert model.get_layer(index=1) is inner.layers[1]
    part = keras.Model(model.input, model.get_layer("a").output)
    np.testing.assert_array_equal(part.predict(X, verbose=0), model.predict(X, verbose=0)[0])
    shown = [io.StringIO(), io.StringIO()]
    for one, text in zip((inner, model), shown, strict=True):
        one.summary(print_fn=lambda line, text=text: print(line, file=text))
    assert "a (Dense)" in shown[0].getvalue()
    assert shown[1].getvalue() == shown[0].getvalue()


def test_the_loss_is_shown_as_it_was_given():
    model = balance_model(two_heads(), 2)
    given = ["mse", keras.losses.MeanAbsoluteError()]
    model.compile(loss=given)
    assert model.loss == given


def test_a_compiled_model_is_compiled_as_it_was():
    inner = two_heads()
    inner.compile(keras.optimizers.SGD(0.02), ["mse", "mae"], metrics=[["mae"], []])
    inner.train_on_batch(X, Y)
    model = balance_model(inner, Linear(2))
    assert model.optimizer is inner.optimizer  # with its momentum
    logs = model.fit(X, Y, verbose=0).history
    assert {"a_mae", "loss_weight/a"} < set(logs)
    assert inner.optimizer.iterations == 2


def test_a_model_compiled_with_loss_weights_is_told_so():
    inner = two_heads()
    inner.compile(loss="mse", loss_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"what the scheme sets: .*got \[1.0, 2.0\]"):
        balance_model(inner, 2)


@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss", "predict_step", "fit"])
def test_a_model_with_a_step_of_its_own_is_refused(name):
    own = type("Own", (keras.Model,), {name: lambda self, *_, **__: None})
    with pytest.raises(ValueError, match=rf"with the layer.*drop {name} of Own"):
        balance_model(two_heads(own), 2)
    with pytest.raises(ValueError, match=r"drop compute_loss.* of BalancedModel"):
        balance_model(balance_model(two_heads(), 2), 2)


def test_a_model_with_a_call_of_its_own_is_taken():
    own = type("Own", (keras.Model,), {"call": lambda self, x: [x, x]})
    assert balance_model(own(), 2).model.__class__ is own
    balance_model(keras.Sequential([keras.layers.Dense(1)]), 1)


def test_what_is_no_model_of_keras_3_is_refused_by_name():
    kind = type("Functional", (), {"__module__": "tf_keras.src.engine.functional"})
    with pytest.raises(TypeError, match=r"Keras 3 .*got a tf_keras\.src\.engine\.functional\.Func"):
        balance_model(kind(), 2)
    with pytest.raises(TypeError, match=r"must be a keras\.Model of Keras 3"):
        balance_model(keras.layers.Dense(1), 2)


def test_a_custom_loss_that_is_missing_at_load_is_named(tmp_path):
    def mine(y, p):
        return (y - p) ** 2

    model = balance_model(two_heads(), 2)
    model.compile(loss=[mine, "mse"])
    model.train_on_batch(X, Y)
    model.save(tmp_path / "m.keras")
    with pytest.raises(TypeError, match="mine"):
        keras.saving.load_model(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", custom_objects={"mine": mine})
    assert loaded.loss[0] is mine


def test_a_file_of_before_in_which_losses_are_wrapped_is_read():
    model, other = (balance_model(two_heads(), 2) for _ in range(2))
    model.compile(loss={"a": "mse", "b": keras.losses.MeanAbsoluteError()})
    config = model.get_compile_config()
    for key, loss in config["loss"].items():
        tap = {"loss": loss, "key": key, "name": "loss"}
        config["loss"][key] = {
            "module": "loss_balance.backends.keras.model",
            "class_name": "Tap",
            "config": tap,
            "registered_name": "loss_balance>Tap",
        }
    other.compile_from_config(config)
    assert other.loss["a"] == "mse"
    assert isinstance(other.loss["b"], keras.losses.MeanAbsoluteError)


def test_options_of_the_balancer_are_kept(tmp_path):
    model = balance_model(two_heads(), AdaLoss(2), dtype="float64")
    model.compile(loss="mse")
    model.train_on_batch(X, Y)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [m.balancer.export_state()["average"].dtype for m in (model, loaded)] == ["float64"] * 2


def test_a_model_without_losses_has_nothing_to_balance():
    model = balance_model(two_heads(), 2)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"losses of compile\(loss=...\), got none"):
        model.train_on_batch(X, Y)
