"""The Keras block of docs/guides, on whatever backend Keras runs."""

from __future__ import annotations

import pytest

keras = pytest.importorskip("keras")
import numpy as np
from keras import ops
from support.docs.loop_page import run

from loss_balance.experiments.verification.oracle import Oracle


def test_gradient_accumulation_moves_the_averages_once_a_step_on_the_undivided_batch(monkeypatch):
    standing = keras.optimizers.SGD  # moves nothing, so that the losses are known afterwards
    monkeypatch.setattr(keras.optimizers, "SGD", lambda _, **options: standing(0.0, **options))
    page = run("keras", "accumulate")
    state = page.model.balancer.export_state()
    assert int(ops.convert_to_numpy(page.optimizer.iterations)) == state["step"] == 4
    depth, labels = (page.depth, page.labels) - np.array(page.model.predict(page.x, verbose=0))
    oracle = Oracle(2)
    for _epoch in range(2):
        for half in (slice(0, 64), slice(64, 128)):
            weights = oracle.update([(depth[half] ** 2).mean(), abs(labels[half]).mean()])
    assert state["average"] == pytest.approx(oracle.average, rel=1e-5)
    assert state["weights"] == pytest.approx(weights, rel=1e-5)
    assert not state["pending"].any()
