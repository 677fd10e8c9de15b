"""A SavedModel equals the network of Keras it is of, or is not there."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks.exports import (
    BATCHES,
    TINY,
    all_families,
    check_folder,
    check_refused,
    check_segments,
    filled,
    images_for,
)

tf = pytest.importorskip("tensorflow")

from loss_balance.reference_models.keras.exporting import to_savedmodel
from loss_balance.reference_models.tensorflow import AnytimeNet


def logits(net, images):
    return [np.asarray(x) for x in net(images, training=False)]


@all_families
def test_segments_give_what_a_call_gives(spec):
    net = filled(AnytimeNet, spec)
    images = images_for(spec, 3)
    check_segments(net.segments(), tf.constant(images), logits(net, images))


@all_families
def test_a_saved_model_equals_the_network(spec, tmp_path):
    net = filled(AnytimeNet, spec)
    written = to_savedmodel(net, tmp_path / "made")
    assert written.difference <= 1e-5
    model = tf.saved_model.load(str(tmp_path / "made"))
    assert len(model.signatures) == 2 * len(spec.exits)

    def run(name, inputs, outputs, arrays):
        given = dict(zip(inputs, map(tf.constant, arrays), strict=True))
        found = model.signatures[name](**given)
        return [found[output].numpy() for output in outputs]

    for count in BATCHES:
        images = images_for(spec, count)
        check_folder(tmp_path / "made", spec, images, logits(net, images), run)


def test_an_export_that_is_not_its_network_leaves_nothing(tmp_path):
    other = AnytimeNet(TINY, seed=1)
    check_refused(to_savedmodel, filled(AnytimeNet, TINY), other, tmp_path)


def test_a_network_in_another_type_is_named(tmp_path):
    net = AnytimeNet(TINY, dtype="mixed_bfloat16")
    with pytest.raises(ValueError, match="must compute in float32, got bfloat16"):
        to_savedmodel(net, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
