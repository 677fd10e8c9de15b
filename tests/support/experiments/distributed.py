"""What a learner over several devices promises in JAX and TensorFlow: the run of one device."""

from __future__ import annotations

import numpy as np
import pytest
from support.experiments.learners import (
    DATA,
    FIRST_ORDER,
    GUIDED,
    batches,
    ignore,
    make,
)

from loss_balance.experiments.errors import Interruption
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.loop import train
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.reference_models.description import weights

HOW = {"usual": {}, "guided": GUIDED, "norms": FIRST_ORDER}


def steps_of(run, count=5):
    """(state, losses, evaluation) after so many steps."""
    trained = learner(run, DATA)
    losses = [trained.train_epoch([batch], 0.1, ignore) for batch in batches(count)]
    tested = trained.evaluate(feed.evaluation(DATA, DATA.x_test, DATA.y_test))
    return trained.state(), np.array(losses), np.array(tested)


def assert_alike(found, expected):
    """Rounding differs by 1e-6; a sum for a mean, or one device's part alone, by 0.01 and more."""
    for name, array in expected[0].items():
        np.testing.assert_allclose(found[0][name], array, rtol=1e-4, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    np.testing.assert_allclose(found[2][0], expected[2][0], rtol=1e-4)
    np.testing.assert_allclose(found[2][1], expected[2][1], atol=1.5 / len(DATA.y_test))  # a tie


def trained_in(folder, framework, devices, stop_before=None):
    """The result. Of few steps: a ReLU that turns at another bit sets long runs apart."""

    def progress(epoch, step, loss):
        return epoch != stop_before

    run = make(framework, devices=devices, batch_size=448, learning_rate=0.02)
    return train(run, learner(run, DATA), DATA, folder, progress)


def assert_goes_on_with_others(framework, first, others, folder):
    """Each of the others trains an epoch of what is in the folder, the last one the rest.

    A ReLU that turns moves what is kept by 1e-3; a state that did not come along by 0.1 and more.
    """
    whole, cut = folder / "whole", folder / "cut"
    expected = trained_in(whole, framework, 1)
    for epoch, devices in enumerate((first, *others[:-1]), start=1):
        with pytest.raises(Interruption):
            trained_in(cut, framework, devices, stop_before=epoch)
    found = trained_in(cut, framework, others[-1])
    for name, values in expected.items():
        tie = 1.5 / len(DATA.y_test) if name == "test_error" else 0.0
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=tie)
    epochs = read_metrics(cut)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    left, right = (weights.load(place / "checkpoint.npz") for place in (whole, cut))
    for name, array in left.items():
        np.testing.assert_allclose(right[name], array, rtol=1e-3, atol=5e-3, err_msg=name)
