"""TensorFlow's learner in a replica on each of several devices: the steps of one, to rounding."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")
tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from support.experiments.distributed import (
    HOW,
    assert_alike,
    assert_goes_on_with_others,
    steps_of,
)
from support.experiments.learners import DATA, batches, ignore, make

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.learners.keras_replicas import place_of

DEVICES = 4
place_of(Engine("tensorflow", devices=DEVICES))  # before anything here computes


def assert_same_on_all(trained):
    """Of all that is saved."""
    network = {name: variable.value for name, variable in trained.net.named_variables()}
    balance = {variable.name: variable.value for variable in trained.balance.variables}
    momenta = {f"momentum of {name}": momentum for name, momentum in trained.momenta.items()}
    for name, variable in {**network, **balance, **momenta}.items():
        first, *others = (replica.numpy() for replica in variable.values)
        assert len(others) == DEVICES - 1
        for other in others:
            np.testing.assert_array_equal(other, first, err_msg=name)


def trained_by(batch_norm="global", count=2):
    trained = learner(make("tensorflow", devices=DEVICES, batch_norm=batch_norm), DATA)
    trained.train_epoch(batches(count), 0.1, ignore)
    return trained


@pytest.fixture(scope="module")
def four():
    return trained_by()


@pytest.mark.parametrize(("devices", "how"), [(4, "usual"), (2, "guided"), (2, "norms")])
def test_the_steps_are_those_of_one_device(devices, how):
    one, several = (steps_of(make("tensorflow", devices=n, **HOW[how])) for n in (1, devices))
    assert_alike(several, one)


def test_every_replica_has_the_same_of_what_is_saved(four):
    assert_same_on_all(four)


def test_every_replica_computes_its_rows_alone(four):
    seen = []

    def rows(images):
        own = four.place.own(images)
        seen.append(own.shape[0])
        return own

    tf.function(four.place.jointly(rows))(tf.constant(DATA.x_train[:10]))
    assert seen == [3, 3, 2, 2]


def test_one_graph_serves_all_steps(four):
    before = four._step.experimental_get_tracing_count()
    four.train_epoch(batches(2), 0.01, ignore)
    assert four._step.experimental_get_tracing_count() == before == 1


@pytest.mark.parametrize("count", [1, 6])
def test_any_number_of_images_is_scored(four, count):
    one = learner(make("tensorflow"), DATA)
    one.load_weights(four.weights())
    split = [(DATA.x_test[:count], DATA.y_test[:count])]
    (loss, error), (expected, wrong) = four.evaluate(split), one.evaluate(split)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_array_equal(error, wrong)


def test_images_that_come_with_their_batch_are_divided_too():
    (batch,) = batches(1)
    index = np.arange(len(batch.chosen), dtype=np.int32)
    images, labels = DATA.x_train[batch.chosen], DATA.y_train[batch.chosen]
    streamed = batch._replace(chosen=index, images=images, labels=labels)
    one, other = (learner(make("tensorflow", devices=2), DATA) for _ in range(2))
    other.resident = None
    expected = one.train_epoch([batch], 0.1, ignore)
    np.testing.assert_allclose(other.train_epoch([streamed], 0.1, ignore), expected, rtol=1e-5)


def test_local_batch_norm_ends_in_the_mean_of_the_replicas_statistics():
    """Each replica has seen what a network of one device sees of its rows."""
    trained = trained_by("local", 1)
    (batch,) = batches(1)
    means = []
    for rank in range(DEVICES):
        part = slice(rank, None, DEVICES)
        draws = batch.draws._make(values[part] for values in batch.draws)
        rows = batch._replace(chosen=batch.chosen[part], draws=draws)
        one = learner(make("tensorflow"), DATA)
        one.train_epoch([rows], 0.1, ignore)
        means.append(one.weights())
    found = trained.weights()
    for name in found:
        if name.endswith((".mean", ".var")):
            expected = np.mean([each[name] for each in means], axis=0)
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_same_on_all(trained)


def test_a_run_stopped_on_four_devices_goes_on_with_others(tmp_path):
    assert_goes_on_with_others("tensorflow", DEVICES, (1, 2), tmp_path)


def test_more_devices_than_there_are_are_refused(four):
    with pytest.raises(UserError, match=r"^--devices must be at most 4 here, got 8$"):
        place_of(replace(make("tensorflow").engine, devices=8))
