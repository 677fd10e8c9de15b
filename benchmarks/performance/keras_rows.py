"""Keras on whatever backend it runs: an epoch of `balance_model` over static `loss_weights`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from benchmarks.performance.rows import Options, Row, compared, tell
from benchmarks.timing import Step
from loss_balance.backends.keras import balance_model

EXITS, BATCH, BATCHES = 9, 64, 50
TABLE = "Keras, an epoch of 50 batches of a network with 9 exits"
BASE = "fit with static loss_weights"


def network() -> Any:
    """An exit after each layer, as the small network in PyTorch."""
    keras.utils.set_random_seed(0)
    h = x = keras.Input((64,))
    exits = []
    for k in range(EXITS):
        h = keras.layers.Dense(64, activation="relu")(h)
        exits.append(keras.layers.Dense(10, name=f"exit{k}")(h))
    return keras.Model(x, exits)


def epoch(*, balanced: bool) -> Step:
    """What fits one epoch."""
    model = network()
    loss = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(EXITS)]
    rate = keras.optimizers.SGD(0.01, momentum=0.9)
    if balanced:
        model = balance_model(model, EXITS)
        model.compile(rate, loss)
    else:
        model.compile(rate, loss, loss_weights=[0.5] * EXITS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * BATCHES, 64)).astype(np.float32)
    y = [rng.integers(10, size=BATCH * BATCHES) for _ in range(EXITS)]
    return lambda: model.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False)


def rows(options: Options) -> Iterator[Row]:
    """One ratio."""
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    variants = {BASE: epoch(balanced=False), "balance_model": epoch(balanced=True)}
    backend = keras.backend.backend()
    yield from compared(TABLE, f"on {backend}", variants, BASE, max(3, options.rounds // 3), 1)


if __name__ == "__main__":
    tell(rows)
