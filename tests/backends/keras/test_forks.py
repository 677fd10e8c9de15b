"""Forks in Keras' own ways: functional models, `fit`, and files, on whatever backend Keras runs."""

from __future__ import annotations

import numpy as np
import pytest

from loss_balance import AdaLoss, GradientNorm, Static

keras = pytest.importorskip("keras")
from keras import ops

from loss_balance.backends.tensorflow import Balancer, balance_model

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = [X[:, :1], 2.0 * X[:, 1:2]]
RATE = 0.1


def forked(balance, first=0.5):
    """Two exits of a linear trunk, the same first weights every time."""

    def dense(units, name):
        start = keras.initializers.Constant(first)
        return keras.layers.Dense(units, name=name, kernel_initializer=start, use_bias=False)

    inputs = keras.Input((3,))
    x, heads = inputs, []
    for i in range(2):
        branch, x = balance.fork(dense(3, f"block{i}")(x), i)
        heads.append(dense(1, f"exit{i}")(branch))
    return keras.Model(inputs, heads)


@keras.saving.register_keras_serializable(package="tests")
class Taking(keras.Model):
    """The same as a model of one's own, whose call takes the fork."""

    def __init__(self, **options):
        super().__init__(**options)
        start = keras.initializers.Constant(0.5)
        for i in range(2):
            for name, units in ((f"block{i}", 3), (f"exit{i}", 1)):
                layer = keras.layers.Dense(units, kernel_initializer=start, use_bias=False)
                setattr(self, name, layer)

    def call(self, x, fork=None):
        found = []
        for i in range(2):
            x = getattr(self, f"block{i}")(x)
            branch, x = (x, x) if fork is None else fork(x, i)
            found.append(getattr(self, f"exit{i}")(branch))
        return found


def by_hand(weights):
    """The kernels of blocks and exits after one step of SGD on mean squared errors."""
    blocks, exits = np.full((2, 3, 3), 0.5), np.full((2, 3, 1), 0.5)
    maps = [X @ blocks[0], X @ blocks[0] @ blocks[1]]
    errors = [2 * (maps[i] @ exits[i] - Y[i]) / len(X) for i in range(2)]
    total = sum(weights)
    to_second = errors[1] @ exits[1].T
    to_first = (weights[0] * errors[0] @ exits[0].T + weights[1] * to_second @ blocks[1].T) / total
    moves = [X.T @ to_first, maps[0].T @ to_second, *(maps[i].T @ errors[i] for i in range(2))]
    return [0.5 - RATE * move for move in moves]


def kernels(model):
    return [np.asarray(ops.convert_to_numpy(model.get_layer(n).kernel)) for n in NAMES]


NAMES = ["block0", "block1", "exit0", "exit1"]


def fit(model, epochs=1):
    options = {"batch_size": len(X), "shuffle": False, "verbose": 0, "epochs": epochs}
    return model.fit(X, Y, **options).history


def compiled(model):
    model.compile(keras.optimizers.SGD(RATE), loss=["mse", "mse"])
    return model


SCHEME = Static((0.25, 1.0))


def test_fit_trains_a_functional_model_in_equilibrium():
    balance = Balancer(SCHEME, equilibrium=True)
    model = compiled(balance_model(forked(balance), SCHEME, equilibrium=True))
    assert model.balancer is balance
    history = fit(model)
    for found, wanted in zip(kernels(model), by_hand((0.25, 1.0)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert history["loss"][0] == pytest.approx(history["loss_sum"][0], rel=1e-5)


def test_fit_gives_the_fork_to_a_model_that_takes_it():
    model = compiled(balance_model(Taking(), SCHEME, equilibrium=True))
    fit(model)
    layers = [getattr(model.model, name) for name in NAMES]
    found = [np.asarray(ops.convert_to_numpy(layer.kernel)) for layer in layers]
    for ours, wanted in zip(found, by_hand((0.25, 1.0)), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_forked_model_is_saved_with_its_one_balancer_and_goes_on(tmp_path):
    scheme = AdaLoss(2, decay=0.5)
    balance = Balancer(scheme, equilibrium=True, pull=0.5, names=["exit0", "exit1"])
    model = compiled(balance_model(forked(balance), scheme, equilibrium=True, pull=0.5))
    fit(model, epochs=3)
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    assert (other.balancer.pull, other.balancer.equilibrium) == (0.5, True)
    for one in (model, other):
        fit(one, epochs=2)
    for ours, theirs in zip(kernels(model), kernels(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, value in balance.export_state().items():
        np.testing.assert_array_equal(other.balancer.export_state()[name], value, err_msg=name)


def test_a_copy_that_would_have_a_balancer_for_each_fork_is_refused():
    model = forked(Balancer(SCHEME, equilibrium=True))
    with pytest.raises(ValueError, match="must be copied by saving and loading it"):
        keras.Model.from_config(model.get_config())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: plain(), {"equilibrium": True}, "in equilibrium a model must fork"),
        (
            lambda: forked(Balancer(AdaLoss(2), equilibrium=True)),
            {"equilibrium": True},
            "the balancer must be that of the model's forks",
        ),
        (lambda: two_balancers(), {"equilibrium": True}, "must be of one balancer, got 2"),
    ],
)
def test_models_that_do_not_fork_as_asked_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        balance_model(make(), SCHEME, **options)


def test_fit_cannot_follow_gradients():
    with pytest.raises(ValueError, match="a scheme of losses is needed"):
        balance_model(Taking(), GradientNorm(2), equilibrium=True)


def plain():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [keras.layers.Dense(1)(inputs) for _ in range(2)])


def two_balancers():
    inputs = keras.Input((3,))
    heads = [Balancer(SCHEME, equilibrium=True).fork(inputs, i)[0] for i in range(2)]
    return keras.Model(inputs, [keras.layers.Dense(1)(x) for x in heads])
