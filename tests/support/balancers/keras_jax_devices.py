"""`fit` on Keras' JAX backend, on one device and spread over four by `keras.distribution`.

`KERAS_BACKEND=jax python keras_jax_devices.py FILE` writes what each leaves.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from loss_balance import AdaLoss
from loss_balance.backends.tensorflow import balance_model


def fitted() -> dict[str, Any]:
    """Two epochs of two batches, regularised; the second loss is absent in the second batch."""
    x = np.linspace(-1, 2, 32, dtype="float32").reshape(16, 2)
    first = {"kernel_initializer": keras.initializers.Constant(0.3), "kernel_regularizer": "l2"}
    inputs = keras.Input((2,))
    heads = [keras.layers.Dense(1, name=name, **first)(inputs) for name in "ab"]
    model = balance_model(keras.Model(inputs, heads), AdaLoss(2, decay=0.5))
    model.compile(keras.optimizers.SGD(0.05), loss=["mse", "mae"])
    y, there = [10 * x[:, :1], x[:, 1:] ** 2], np.repeat([1.0, 0.0], 8)
    options = {"sample_weight": [np.ones(16), there], "batch_size": 8, "shuffle": False}
    logs = model.fit(x, y, epochs=2, verbose=0, **options).history
    devices = len(model.balancer.state_weights.value.sharding.device_set)
    weights = {f"weights/{i}": np.asarray(w) for i, w in enumerate(model.get_weights())}
    return {**model.balancer.export_state(), **weights, **logs, "devices": devices}


if __name__ == "__main__":
    found = {f"one/{name}": value for name, value in fitted().items()}
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    found |= {f"four/{name}": value for name, value in fitted().items()}
    np.savez(sys.argv[1], **{name: np.asarray(value) for name, value in found.items()})
