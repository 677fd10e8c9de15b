"""A plain model and its like under `balance_model` with weights of 1, whose numbers are equal.

`python keras_pairs.py FILE` writes those of some kinds of models under two replicas, in a process
of its own: TensorFlow's devices are set only once.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import keras
import numpy as np
from keras import ops
from support.distributed.two_replicas import two_replicas

from loss_balance import Constant
from loss_balance.backends.tensorflow import balance_model

OUTPUTS = ("list", "dict", "nested", "shared")
EXTRAS = ("none", "regulariser", "add_loss")
KINDS = list(itertools.product(OUTPUTS, EXTRAS))
# What is compiled takes seconds each: those that ask most of it.
SOME = [("nested", "regulariser"), ("shared", "add_loss")]
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
TARGETS = [10 * X.sum(axis=1, keepdims=True), X[:, :1], 0.1 * X[:, 1:2] ** 2]
LOSSES = ["mse", "mae", "mse"]


@keras.saving.register_keras_serializable(package="tests")
class AddsLoss(keras.layers.Layer):
    """A layer with a loss of its own, as an activity regulariser has."""

    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


def arranged(outputs: str, three: list[Any]) -> Any:
    """Three of anything in the structure of the outputs; the keys are not in alphabetical order."""
    first, second, third = three
    return {
        "list": three,
        "dict": {"near": first, "far": second, "exit": third},
        "nested": {"near": [first, second], "far": {"only": third}},
        "shared": three,
    }[outputs]


def model_of(outputs: str, extra: str) -> keras.Model:
    """Three linear heads on a layer, with the same first weights every time."""
    x = keras.Input((3,))
    regulariser = keras.regularizers.L2(0.1) if extra == "regulariser" else None
    h = _dense("trunk", 4, regulariser)(x)
    if extra == "add_loss":
        h = AddsLoss()(h)
    if outputs == "shared":
        head = _dense("head", 1, regulariser)
        heads = [head(h), head(2 * h), head(-h)]
    else:
        heads = [_dense(name, 1, regulariser)(h) for name in ("a", "b", "c")]
    return keras.Model(x, arranged(outputs, heads))


def _dense(name: str, units: int, regulariser: Any) -> keras.layers.Dense:
    first = keras.initializers.RandomNormal(seed=sum(name.encode()))
    return keras.layers.Dense(
        units, name=name, kernel_initializer=first, kernel_regularizer=regulariser
    )


def pair(outputs: str, extra: str, **options: Any) -> list[keras.Model]:
    """The plain model and the balanced one, compiled alike."""
    models = [model_of(outputs, extra), balance_model(model_of(outputs, extra), Constant(3))]
    for model in models:
        model.compile(keras.optimizers.SGD(0.01), loss=arranged(outputs, LOSSES), **options)
    return models


def numbers(model: keras.Model, outputs: str) -> dict[str, np.ndarray]:
    """What training leaves: each log, of `evaluate` too, and each weight of the network."""
    y = arranged(outputs, TARGETS)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    return named(model, model.fit(X, y, validation_data=(X, y), **options).history)


def numbers_on_replicas(model: keras.Model, outputs: str) -> dict[str, np.ndarray]:
    """As `numbers`, from a data set of TensorFlow's, which its replicas share out much faster."""
    import tensorflow as tf

    y = keras.tree.lists_to_tuples(arranged(outputs, TARGETS))
    data = tf.data.Dataset.from_tensor_slices((X, y)).batch(8)
    return named(model, model.fit(data, validation_data=data, verbose=0).history)


def one_step(model: keras.Model, outputs: str) -> dict[str, np.ndarray]:
    """As `numbers`, of a single batch."""
    return named(model, model.train_on_batch(X, arranged(outputs, TARGETS), return_dict=True))


def named(model: keras.Model, logs: dict[str, Any]) -> dict[str, np.ndarray]:
    weights = [np.array(w) for w in getattr(model, "model", model).get_weights()]
    found = {f"log {name}": np.array(values) for name, values in logs.items()}
    return found | {f"weight {i}": w for i, w in enumerate(weights)}


if __name__ == "__main__":
    mirrored = two_replicas()
    found = {}
    for outputs, extra in SOME:
        with mirrored.scope():
            both = pair(outputs, extra)
        for kind, model in zip(("plain", "balanced"), both, strict=True):
            for name, value in numbers_on_replicas(model, outputs).items():
                found[f"{outputs} {extra} {kind} {name}"] = value
    np.savez(sys.argv[1], **found)
