"""Two replicas on one machine, in a process of their own: TensorFlow's devices are set only once.

`python keras_replicas.py FILE` writes the weights of each replica after each step, and what `fit`
leaves with one replica and with two, with regularisers.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf
from support.balancers.replica_steps import SCHEME, TWO
from support.distributed.two_replicas import two_replicas

from loss_balance import AdaLoss
from loss_balance.backends.tensorflow import Balancer, balance_model


def run_loop(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    with strategy.scope():
        balance = Balancer(SCHEME)

    @tf.function
    def step(losses, mask):
        def replica(losses, mask):
            with tf.GradientTape() as tape:
                tape.watch(losses)
                total = balance(losses, mask=mask)
            return balance.loss_weights, tape.gradient(total, losses)

        return strategy.run(replica, args=(losses, mask))

    seen = []
    for per_replica in TWO:
        values = [[0.0 if x is None else x for x in losses] for losses in per_replica]
        there = [[x is not None for x in losses] for losses in per_replica]

        def spread(rows):
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(rows[context.replica_id_in_sync_group])
            )

        weights, gradients = step(spread(values), spread(there))
        weights = np.array([w.numpy() for w in weights.values])
        for g, w, mask in zip(gradients.values, weights, there, strict=True):
            np.testing.assert_array_equal(g, w * mask)
        seen.append(weights)
    copies = {v.name: np.array([x.numpy() for x in v.value.values]) for v in balance.variables}
    return {"steps": np.array(seen), **copies}


X = np.linspace(-1, 2, 32, dtype="float32").reshape(16, 2)
Y = [10 * X[:, :1], X[:, 1:] ** 2]


def model_on(strategy: tf.distribute.Strategy | None, strength: float) -> keras.Model:
    """Of two losses, with a regulariser of that strength."""
    with (strategy or tf.distribute.get_strategy()).scope():
        options = {
            "kernel_initializer": keras.initializers.Constant(0.3),
            "kernel_regularizer": keras.regularizers.L2(strength),
        }
        inputs = keras.Input((2,))
        heads = [keras.layers.Dense(1, name=name, **options)(inputs) for name in "ab"]
        model = balance_model(keras.Model(inputs, heads), AdaLoss(2, decay=0.5))
        model.compile(keras.optimizers.SGD(0.05), loss=["mse", "mae"])
    return model


def run_fit(strategy: tf.distribute.Strategy | None) -> list[np.ndarray]:
    """Two epochs of two batches; the halves of a batch differ much.

    The second loss is absent in the second batch, and in the first on one of two replicas.
    """
    model = model_on(strategy, 0.1)
    there = np.repeat([0.0, 1.0, 0.0, 0.0], 4)
    options = {"sample_weight": [np.ones(16), there], "batch_size": 8, "shuffle": False}
    logs = model.fit(X, Y, epochs=2, verbose=0, **options).history
    return [*model.balancer.export_state().values(), *model.get_weights(), *logs.values()]


def first_averages(strategy: tf.distribute.Strategy, strength: float) -> np.ndarray:
    """After one batch, in which no regulariser has changed a parameter yet."""
    model = model_on(strategy, strength)
    model.fit(X, Y, batch_size=16, verbose=0)
    averages: np.ndarray = model.balancer.export_state()["average"]
    return averages


if __name__ == "__main__":
    mirrored = two_replicas()
    found = run_loop(mirrored)
    found |= {f"one/{i}": np.asarray(x) for i, x in enumerate(run_fit(None))}
    found |= {f"two/{i}": np.asarray(x) for i, x in enumerate(run_fit(mirrored))}
    found |= {f"averages/{s}": first_averages(mirrored, s) for s in (0.0, 100.0)}
    np.savez(sys.argv[1], **found)
