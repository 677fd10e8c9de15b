"""The Keras networks on Keras' other backends; on TensorFlow they pass the whole contract."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks.contract import all_kinds, assert_same, random_batch, random_weights
from support.networks.numpy_network import Oracle

keras = pytest.importorskip("keras")
from loss_balance.backends.tensorflow import balance_model
from loss_balance.experiments.verification.small_networks import MULTISCALE, SMALL
from loss_balance.reference_models.tensorflow import AnytimeNet

if keras.backend.backend() == "tensorflow":
    pytest.skip("test_tensorflow_network.py is the longer one", allow_module_level=True)


def filled(spec):
    net = AnytimeNet(spec)
    net.load_weights(random_weights(spec))
    return net


def arrays(answers):
    return [keras.ops.convert_to_numpy(logits) for logits in answers]


@all_kinds
def test_a_call_and_anytime_equal_the_oracle(spec):
    net, (images, _) = filled(spec), random_batch(spec)
    expected = Oracle(spec, random_weights(spec)).logits(images)
    for answers in (net(images, training=False), net.anytime(images)):
        for found, wanted in zip(arrays(answers), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@all_kinds
def test_anytime_goes_on_with_the_samples_that_are_kept(spec):
    net, (images, _) = filled(spec), random_batch(spec)
    expected = arrays(net(images, training=False))
    answers = net.anytime(images)
    next(answers)
    for found, wanted in zip(arrays([answers.send([2, 0])]), expected[1:], strict=False):
        np.testing.assert_allclose(found, wanted[[2, 0]], rtol=1e-4, atol=1e-4)


@all_kinds
def test_weights_come_back_as_they_went_in(spec):
    assert_same(filled(spec).dump_weights(), random_weights(spec))


@pytest.mark.parametrize(("spec", "checkpoint"), [(SMALL, False), (MULTISCALE, True)])
def test_fit_trains_it_with_adaloss(spec, checkpoint):
    net = AnytimeNet(spec, checkpoint=checkpoint)
    net.load_weights(random_weights(spec))
    count = len(spec.exits)
    model = balance_model(net, count)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss=[cross_entropy] * count)
    images, labels = random_batch(spec)
    history = model.fit(images, [labels] * count, epochs=4, batch_size=len(images), verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    moved, before = net.dump_weights(), random_weights(spec)
    same = [name for name in before if np.array_equal(moved[name], before[name])]
    assert not same
