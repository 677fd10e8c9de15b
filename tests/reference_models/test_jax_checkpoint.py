"""Memory in training and inference, and `checkpoint=True`."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from support.networks.contract import all_kinds, assert_same, random_batch, random_weights

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
import optax
from support.balancers.jax_tools import compiled_quickly, cosine

from loss_balance.experiments.verification.probes.jax import JaxProbe
from loss_balance.experiments.verification.small_networks import DENSE, MULTISCALE, SMALL
from loss_balance.reference_models import families
from loss_balance.reference_models.description.parts import ConvStem, LinearHead
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import DenseUnit
from loss_balance.reference_models.jax import AnytimeNet


@pytest.fixture
def _quickly():
    with compiled_quickly():
        yield


def filled(spec, **options):
    net = AnytimeNet(spec, seed=None, **options)
    net.load_weights(random_weights(spec))
    return net


@pytest.mark.usefixtures("_quickly")
@all_kinds
def test_checkpointing_changes_no_logits_gradients_and_statistics(spec):
    """Statistics moved twice would be as far off as from the next step's."""
    plain, checkpointed = filled(spec), filled(spec, checkpoint=True)
    batch = random_batch(spec)
    expected, wanted = JaxProbe().gradients(plain, *batch)
    found, gradients = JaxProbe().gradients(checkpointed, *batch)
    for answer, logits in zip(found, expected, strict=True):
        np.testing.assert_allclose(answer, logits, rtol=1e-4, atol=1e-5)
    for name, g in wanted.items():
        np.testing.assert_allclose(
            gradients[name], g, rtol=0, atol=1e-4 * np.abs(g).max(), err_msg=name
        )
    moved = plain.dump_weights()
    for name, array in checkpointed.dump_weights().items():
        np.testing.assert_allclose(array, moved[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("_quickly")
def test_checkpointing_in_bfloat16_turns_no_gradients():
    plain, checkpointed = (filled(SMALL, dtype=jnp.bfloat16, checkpoint=c) for c in (False, True))
    batch = random_batch(SMALL)
    _, wanted = JaxProbe().gradients(plain, *batch)
    _, found = JaxProbe().gradients(checkpointed, *batch)
    assert cosine(found, wanted) > 0.99


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize("spec", [DENSE, MULTISCALE], ids=lambda spec: spec.name)
def test_checkpointing_goes_on_with_the_samples_that_are_kept(spec):
    net, images = filled(spec, checkpoint=True), random_batch(spec)[0]
    expected = JaxProbe().predict(net, images)[1]
    answers = net.anytime(images)
    next(answers)
    np.testing.assert_allclose(
        answers.send(np.array([2, 0])), expected[[2, 0]], rtol=1e-4, atol=1e-5
    )
    assert_same(net.dump_weights(), random_weights(spec))


def dense(depth, *, every=False):
    """One block, with an exit at its end or after every unit."""
    channels = [8 * (i + 2) for i in range(depth)]  # after each unit
    exits = range(depth) if every else [depth - 1]
    return AnytimeSpec(
        "dense",
        input_shape=(16, 16, 3),
        stem=ConvStem(3, 8),
        units=tuple(DenseUnit(outputs - 8, 8) for outputs in channels),
        exits=tuple(exits),
        heads=tuple(LinearHead(channels[i], 10) for i in exits),
    )


def peak(spec, *, train, checkpoint=False):
    """Bytes that XLA sets aside for one compiled step, beside weights, gradients and logits."""
    graph, state = nnx.split(AnytimeNet(spec, seed=None, checkpoint=checkpoint))
    images, labels = random_batch(spec, size=8)

    def step(state, images, labels):
        net = nnx.merge(graph, state)
        if not train:
            net.eval()
            return net(images)

        def total(net):
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            return sum(cross_entropy(logits, labels).mean() for logits in net(images))

        return nnx.grad(total)(net), nnx.state(net, nnx.BatchStat)

    compiled = jax.jit(step).lower(state, images, labels).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.usefixtures("_quickly")
def test_memory_of_a_dense_block_in_inference_grows_as_its_depth():
    """What is concatenated anew after every unit is not kept: its square would be four times."""
    assert peak(dense(24), train=False) < 2.2 * peak(dense(12), train=False)


@pytest.mark.usefixtures("_quickly")
def test_memory_of_a_dense_block_in_training_grows_as_its_depth_where_checkpointed():
    assert peak(dense(12), train=True) > 2.8 * peak(dense(6), train=True)
    few, many = (peak(dense(depth), train=True, checkpoint=True) for depth in (6, 12))
    assert many < 2.2 * few


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize(
    ("spec", "share"),
    [
        (families.resann(3, 8, input_shape=(16, 16, 3)), 0.6),
        (dense(12), 0.5),
        (families.msdnet(9, input_shape=(16, 16, 3)), 0.6),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_checkpointing_saves_memory(spec, share):
    plain, saving = (peak(spec, train=True, checkpoint=c) for c in (False, True))
    assert saving < share * plain


def test_anytime_holds_the_current_maps_and_nothing_older():
    spec, size = dense(6, every=True), 8
    net = filled(spec)
    images = jnp.asarray(random_batch(spec, size)[0])
    gc.collect()
    before = live_bytes()
    for unit, logits in zip(spec.units, net.anytime(images), strict=True):
        maps = logits.dtype.itemsize * size * 16 * 16 * (unit.in_channels + unit.growth)
        last = unit is spec.units[-1]  # whose maps no exit reads any more
        assert live_bytes() - before == logits.nbytes + (0 if last else maps)


def live_bytes():
    return sum(array.nbytes for array in jax.live_arrays())
