"""Which losses `compile` takes, what they are called, in what order, and when one is absent."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from loss_balance import AdaLoss, Constant, Linear

keras = pytest.importorskip("keras")
from support.balancers.keras_tools import BACKEND

from loss_balance.backends.tensorflow import balance_model

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = [10.0 * X[:, :1], X[:, :1], 0.1 * X[:, :1]]


def heads(names):
    """A dense layer of each name on one input."""
    x = keras.Input((3,))
    return x, [keras.layers.Dense(1, name=name)(x) for name in names]


def step(model, y=None, **options):
    """The logs of one batch."""
    model.reset_metrics()  # Keras before 3.15 does not
    return model.train_on_batch(X, Y if y is None else y, return_dict=True, **options)


def balanced(model, scheme, loss="mse", names=None):
    model = balance_model(model, scheme, names)
    # Eager but for what is asked of compiled steps below: there are many.
    model.compile(keras.optimizers.SGD(0.0), loss=loss, run_eagerly=True)
    return model


def weights(logs):
    start = "loss_weight/"
    return {n.removeprefix(start): float(w) for n, w in logs.items() if n.startswith(start)}


@pytest.mark.parametrize("loss", ["mse", "dict"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_dict_of_outputs_is_weighed_in_the_order_it_was_written(lazy, loss):
    names = [f"exit{i}" for i in range(1, 13)]  # in alphabetical order exit10 comes second
    x, outputs = heads([f"layer{i}" for i in range(12)])
    inner = keras.Model(x, dict(zip(names, outputs, strict=True)))
    if lazy:
        inner = Lazy(names)
    if loss == "dict":
        loss = dict.fromkeys(reversed(names), "mse")
    model = balanced(inner, Linear(12), loss)
    logs = step(model, dict.fromkeys(names, Y[0]))
    assert weights(logs) == pytest.approx(dict(zip(names, np.linspace(0.25, 1, 12), strict=True)))
    assert model.balancer.names == tuple(names)


class Lazy(keras.Model):
    """A model that Keras knows no outputs of before it is called."""

    def __init__(self, names):
        super().__init__()
        self.heads = [keras.layers.Dense(1) for _ in names]
        self.keys = names

    def call(self, x):
        return {key: head(x) for key, head in zip(self.keys, self.heads, strict=True)}


def test_order_and_names_survive_a_file(tmp_path):
    x, outputs = heads("abc")
    model = balanced(keras.Model(x, dict(zip("zyx", outputs, strict=True))), Linear(3))
    expected = weights(step(model, dict(zip("zyx", Y, strict=True))))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.balancer.names == ("z", "y", "x")
    assert weights(step(loaded, dict(zip("zyx", Y, strict=True)))) == expected


def test_names_give_the_schemes_order():
    x, outputs = heads("abc")
    for shape in (list, lambda three: dict(zip("abc", three, strict=True))):
        model = balanced(keras.Model(x, shape(outputs)), Linear(3), names=["c", "a", "b"])
        found = weights(step(model, shape(Y)))
        assert found == pytest.approx({"c": 0.25, "a": 0.625, "b": 1.0})


FORMS = {  # outputs, losses, targets, what the weights are called
    "one loss for a dict": (dict, "mse", dict, "pqr"),
    "lists of one loss": (dict, {"p": ["mse"], "q": ["mse"], "r": ["mse"]}, dict, "pqr"),
    "a dict of some": (dict, {"r": "mse", "p": "mse"}, "pr", "pr"),
    "a list of some": (list, ["mse", None, "mse"], list, "ac"),
    "targets of some": (list, ["mse", None, "mse"], "list of two", "ac"),
    "a dict for a list": (list, {"c": "mse", "b": "mse", "a": "mse"}, list, "abc"),
    "nested": ("nested", "mse", "nested", ["p/a", "p/b", "q/r"]),
    "a loss on a list": (
        "nested",
        {"p": ["mse", None], "q": {"r": "mse"}},
        "nested",
        ["p/a", "q/r"],
    ),
}


def arranged(form, three):
    if form is list:
        return list(three)
    if form == "list of two":
        return [three[0], three[2]]
    if form == "nested":
        return {"p": list(three[:2]), "q": {"r": three[2]}}
    keys = "pqr" if form is dict else form
    return {key: three["pqr".index(key)] for key in keys}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # for an output without a loss
@pytest.mark.parametrize("form", FORMS)
def test_losses_are_what_plain_keras_takes(form):
    outputs, loss, targets, names = FORMS[form]
    x, three = heads("abc")
    inner = keras.Model(x, arranged(outputs, three))
    plain = keras.models.clone_model(inner)
    plain.set_weights(inner.get_weights())
    plain.compile(keras.optimizers.SGD(0.0), loss=loss, run_eagerly=True)
    expected = step(plain, arranged(targets, Y))
    model = balanced(inner, Constant(len(names)), loss)
    logs = step(model, arranged(targets, Y))
    assert model.balancer.names == tuple(names)
    assert set(weights(logs)) == set(names)
    for name, value in expected.items():
        assert float(logs[name]) == pytest.approx(float(value)), name
    assert float(logs["loss_sum"]) == pytest.approx(float(expected["loss"]))


@pytest.mark.parametrize("loss", [{"h": "mse"}, ["mse", "mse"], "mse"], ids=repr)
def test_outputs_of_one_layer_have_a_loss_and_a_column_each(loss, tmp_path):
    x = keras.Input((3,))
    head = keras.layers.Dense(1, name="h")
    inner = keras.Model(x, [head(x), head(2 * x)])
    model = balanced(inner, AdaLoss(2, gamma=0.0), loss)
    logs = step(model, Y[:2])
    kernel = inner.get_layer("h").get_weights()[0]
    found = [
        np.mean((factor * X @ kernel - y) ** 2) for factor, y in zip((1, 2), Y[:2], strict=True)
    ]
    assert [logs["h_loss"], logs["h_1_loss"]] == pytest.approx(found, rel=1e-5)
    assert weights(logs) == pytest.approx(
        {"h": min(found) / found[0], "h_1": min(found) / found[1]}
    )
    assert logs["loss"] == pytest.approx(2 * min(found), rel=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert set(step(loaded, Y[:2])) == set(logs)


@pytest.mark.parametrize("eager", [True, False])
def test_a_loss_whose_samples_all_weigh_nothing_is_absent(eager):
    """As None is for the layer; one sample that counts makes it a loss."""
    x, outputs = heads("ab")
    model = balanced(keras.Model(x, outputs), AdaLoss(2, gamma=0.0, decay=0.5), "mae")
    model.run_eagerly = eager
    ones, zeros = np.ones(16, "float32"), np.zeros(16, "float32")
    one = np.eye(16, dtype="float32")[0]
    first = step(model, Y[:2], sample_weight=[ones, ones])
    before = model.balancer.export_state()
    logs = step(model, Y[:2], sample_weight=[ones, zeros])
    after = model.balancer.export_state()
    np.testing.assert_allclose(after["average"], before["average"])  # the first loss is as it was
    np.testing.assert_allclose(after["weights"], before["weights"])
    assert after["step"] == 2
    assert logs["loss"] == pytest.approx(first["loss_weight/a"] * first["a_loss"], rel=1e-5)
    logs = step(model, Y[:2], sample_weight=[ones, one])
    average = (before["average"][1] + float(logs["b_loss"])) / 2
    assert model.balancer.export_state()["average"][1] == pytest.approx(average, rel=1e-5)


def test_a_target_that_is_there_once_in_ten_batches_does_not_sink_the_other():
    x, outputs = heads("ab")
    model = balanced(keras.Model(x, outputs), AdaLoss(2, gamma=0.0))
    rows = np.repeat(np.arange(20) % 10 == 0, 16).astype("float32")  # in whole batches
    y = [np.tile(Y[0], (20, 1)), np.tile(Y[0], (20, 1))]
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    model.fit(np.tile(X, (20, 1)), y, sample_weight=[np.ones(320), rows], **options)
    np.testing.assert_allclose(model.balancer.export_state()["weights"], [1, 1], rtol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
def test_a_negative_loss_is_shown(eager):
    """The core refuses one in the very first call, if that is eager; later it is counted."""
    x, outputs = heads("ab")
    model = balanced(keras.Model(x, outputs), AdaLoss(2), ["mse", lambda y, p: y * p])
    model.run_eagerly = eager
    head = model.get_layer("b")
    head.set_weights([np.eye(3, dtype="float32")[:, :1], np.zeros(1)])
    assert step(model, Y[:2])["loss_skipped/b"] == 0
    logs = step(model, [Y[0], -Y[1]])
    assert logs["b_loss"] < 0
    assert (logs["loss_skipped/a"], logs["loss_skipped/b"]) == (0, 1)


def test_loss_sum_stands_still_while_loss_moves_with_the_weights():
    """So that `val_loss_sum` tells models with other weights apart, as `val_loss` does not."""
    x, outputs = heads("abc")
    inner = keras.Model(x, outputs)
    found = {}
    for gamma in (0.0, 0.1, 1.0):
        model = balanced(inner, AdaLoss(3, gamma=gamma))
        options = {"batch_size": 6, "verbose": 0, "shuffle": False}  # the last batch is smaller
        found[gamma] = model.fit(X, Y, validation_data=(X, Y), **options).history
    sums = [logs["val_loss_sum"][0] for logs in found.values()]
    assert sums == pytest.approx([sums[0]] * 3)
    plain = keras.Model(x, outputs)
    plain.compile(loss="mse")
    assert sums[0] == pytest.approx(plain.evaluate(X, Y, batch_size=6, verbose=0)[0])
    assert found[0.0]["val_loss"][0] < found[1.0]["val_loss"][0] == pytest.approx(sums[0])
    assert found[0.1]["loss_sum"] == pytest.approx(found[1.0]["loss"])


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch is eager")
def test_a_compiled_step_takes_a_nested_dict_too():
    x, three = heads("abc")
    model = balance_model(keras.Model(x, arranged("nested", three)), Linear(3))
    model.compile("sgd", "mse")
    found = weights(step(model, arranged("nested", Y)))
    assert found == pytest.approx({"p/a": 0.25, "p/b": 0.625, "q/r": 1.0})


def test_repeated_names_stay_distinct_whatever_they_are():
    from loss_balance.backends.keras.losses import distinct

    for names in itertools.product(["h", "h_1", "h_2"], repeat=4):
        found = distinct(names)
        assert len(set(found)) == 4
        assert all(new.startswith(old) for new, old in zip(found, names, strict=True))
        assert found == names or len(set(names)) < 4
