"""`balance_model` under Keras' callbacks, on every backend of Keras."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

keras = pytest.importorskip("keras")
import numpy as np
from support.docs.integrations import shown
from support.docs.loop_page import need

from loss_balance.backends.keras import Balancer, LossWeightLogger, balance_model

WEIGHT, AVERAGE = "loss_weight/depth", "loss_average/depth"
rng = np.random.default_rng(0)
X = rng.standard_normal((80, 8)).astype("float32")
Y = [3.0 * rng.standard_normal((80, 1)), rng.standard_normal((80, 1))]  # 5 batches


def balanced(seed=0, names=None):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("depth", "labels")]
    model = balance_model(keras.Model(inputs, outputs), 2, names)
    model.compile(keras.optimizers.SGD(0.01), loss=["mse", "mse"])
    return model


def fit(model, *callbacks, epochs=2, **options):
    """Batches in their order, so that runs can be compared."""
    usual = {"batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **{**usual, **options}).history


class Batches(keras.callbacks.Callback):
    """Keeps the logs of every batch."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def state(model):
    return {k: v.tolist() for k, v in model.balancer.export_state().items()}


def test_the_logs_of_batches_have_the_weights_and_nobody_asks_between(monkeypatch):
    asked, original = [], Balancer.read_metrics

    def read_metrics(balancer):
        asked.append(int(balancer.export_state()["step"]))
        return original(balancer)

    monkeypatch.setattr(Balancer, "read_metrics", read_metrics)
    model, seen = balanced(), Batches()
    fit(model, LossWeightLogger(every=5), seen)
    assert asked == [5, 10]
    averages = [logs.get(AVERAGE) for logs in seen.logs]
    assert averages[:4] == [None] * 4
    assert averages[4] == averages[8] != averages[9]  # between, what the last reading gave
    assert seen.logs[-1].items() > original(model.balancer).items()
    assert seen.logs[-1][WEIGHT] < seen.logs[-1]["loss_weight/labels"] == 1.0


def test_balancers_in_a_model_of_ones_own_are_told_apart():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = Balancer(2, names=["a", "b"], name="first")
            self.second = Balancer(2, name="second")

    logger = LossWeightLogger()
    logger.set_model(Two())
    logger.on_train_begin()
    logs = {}
    logger.on_train_batch_end(0, logs)
    assert {k for k in logs if "weight" in k} == {
        *("loss_weight/first/a", "loss_weight/first/b"),
        *("loss_weight/second/0", "loss_weight/second/1"),
    }
    one = LossWeightLogger(prefix="first")
    one.set_model(Two())
    logs = {}
    one.on_train_batch_end(0, logs)
    assert {k for k in logs if "weight" in k} == {"loss_weight/a", "loss_weight/b"}


def test_a_model_without_a_balancer_is_refused():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rule = "LossWeightLogger must have a model with a Balancer in it, got Sequential without"
    with pytest.raises(ValueError, match=rf"^{rule}$"):
        model.fit(X, Y[1], callbacks=[LossWeightLogger()], verbose=0)
    with pytest.raises(ValueError, match=r"^every must be a whole number of at least 1, got 0$"):
        LossWeightLogger(every=0)


def test_epochs_are_logged_without_it_under_keys_that_loggers_take():
    model = balanced(names=["depth (m)", "labels (m)"])
    history = fit(model, keras.callbacks.CSVLogger("log.csv"))
    key = f"{WEIGHT} _m_"
    with Path("log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row[key]) for row in rows] == pytest.approx(history[key])
    assert history[key][0] < 1.0


def test_a_backup_goes_on_exactly_where_the_run_broke():
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise InterruptedError

    through, broken, again = balanced(), balanced(), balanced(seed=1)
    fit(through, epochs=3)
    with pytest.raises(InterruptedError):
        fit(broken, keras.callbacks.BackupAndRestore("backup"), Break(), epochs=3)
    history = fit(again, keras.callbacks.BackupAndRestore("backup"), epochs=3)
    assert len(history["loss"]) == 2
    assert state(again) == state(through)
    for a, b in zip(again.get_weights(), through.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_and_the_restored_best_weights_have_the_balancers_state():
    model, after = balanced(), []
    best = {"monitor": "loss_sum", "mode": "max"}  # so that the first epoch stays the best
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: after.append(step(model)))
    fit(
        model,
        keep,
        keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True, **best),
        keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True, **best),
        epochs=5,
    )
    assert after == [5, 10]
    loaded = keras.saving.load_model("best.keras")
    assert state(loaded) == state(model)
    assert model.balancer.export_state()["step"] == 5


def step(model):
    """How many updates there were; on JAX `fit` keeps them until it is asked."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
    return int(model.balancer.export_state()["step"])


@pytest.fixture
def read():
    """What Keras' TensorBoard callback wrote: value by step, of a tag."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("Keras' callback needs tensorflow, which is not installed here")
    need("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    def read(folder, tag):
        events = EventAccumulator(folder)
        events.Reload()
        return {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}

    return read


def test_tensorboard_has_the_weights_of_epochs_by_itself(read):
    history = fit(balanced(), keras.callbacks.TensorBoard("board"))
    found = read("board/train", f"epoch_{WEIGHT}")
    assert found == pytest.approx(dict(enumerate(history[WEIGHT])))


def test_the_block_of_the_page_shows_the_weights_of_batches_in_tensorboard(read):
    page = shown("callbacks")
    found = read("logs/train", f"batch_{AVERAGE}")
    assert list(found) == [5, 10, 15, 20]  # of 24 batches
    assert len(set(found.values())) == 4
    assert Path("best.keras").exists()
    assert page.model.balancer.export_state()["step"] > 0
