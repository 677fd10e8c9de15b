"""Memory in training and inference, and `checkpoint=True`."""

from __future__ import annotations

import numpy as np
import pytest
from networks import all_kinds, assert_same, random_batch, random_weights

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax_tools import compiled_quickly, cosine  # noqa: E402

from loss_balance.experiments.jax_probe import JaxProbe  # noqa: E402
from loss_balance.experiments.small_networks import DENSE, MULTISCALE, SMALL  # noqa: E402
from loss_balance.reference_models import families  # noqa: E402
from loss_balance.reference_models.jax import AnytimeNet  # noqa: E402


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


def dense(depth, period=1):
    return families.denseann(depth, 8, input_shape=(16, 16, 3), period=period)


def multi_scale(depth):
    return families.msdnet(3 * depth, input_shape=(16, 16, 3), period=depth)


def peak(spec, *, train, checkpoint=False):
    """Bytes that XLA sets aside for one compiled step, beside weights, gradients and logits."""
    graph, state = nnx.split(AnytimeNet(spec, seed=None, checkpoint=checkpoint))
    images, labels = random_batch(spec, size=32)

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
