"""The networks of Flax NNX under JAX's transformations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from networks import NetworkContract, all_kinds, assert_same

from loss_balance.experiments.probe import random_batch, random_weights
from loss_balance.experiments.small_networks import DENSE, MULTISCALE, SMALL, SPARSE
from loss_balance.reference_models import families

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")

import jax.numpy as jnp  # noqa: E402

from loss_balance.experiments.jax_probe import JaxProbe  # noqa: E402
from loss_balance.reference_models import jax_units  # noqa: E402
from loss_balance.reference_models.jax import AnytimeNet  # noqa: E402


class TestJax(NetworkContract):
    probe = JaxProbe()

    def parts_run(self, net, images, exits):
        """The modules called while tracing with all inner compilation switched off."""
        run = []
        named = {"stem": net.stem}
        named |= {f"unit{i}": unit for i, unit in enumerate(net.units)}
        named |= {f"exit{i}": head for i, head in net.exits.items()}
        for name, part in named.items():
            part.label = name  # carried along when NNX takes modules apart and together

        def recorder(call):
            def recorded(part, *inputs):
                run.append(part.label)
                return call(part, *inputs)

            return recorded

        def consume(images):
            answers = net.anytime(images)
            return [next(answers) for _ in range(exits)]

        with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
            for kind in jax_units.KINDS.values():
                patch.setattr(kind, "__call__", recorder(kind.__call__))
            jax.eval_shape(consume, images)
        return run


def filled(spec, seed=1, **options):
    net = AnytimeNet(spec, **options)
    net.load_weights(random_weights(spec, seed))
    return net


def assert_close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def compiled_sizes(run):
    """How often JAX compiles while `run` runs."""
    counted = []

    def listener(name, _seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            counted.append(name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        run()
    finally:
        jax.monitoring.clear_event_listeners()
    return len(counted)


def test_bfloat16_computes_with_float32_parameters():
    images, _ = random_batch(SPARSE)
    expected = JaxProbe().predict(filled(SPARSE), images)
    net = filled(SPARSE, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(net))} == {jnp.dtype("float32")}
    assert jax.eval_shape(lambda x: net.stem(x), images).dtype == jnp.bfloat16
    for found, wanted in zip(JaxProbe().predict(net, images), expected, strict=True):
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_new_weights_compile_nothing():
    net = filled(SPARSE)
    images, _ = random_batch(SPARSE)
    probe = JaxProbe()
    first = list(probe.anytime(net, images))
    probe.predict(net, images)
    net.load_weights(random_weights(SPARSE, seed=7))
    again = []

    def run():
        again.extend(probe.anytime(net, images))
        probe.predict(net, images)

    assert compiled_sizes(run) == 0
    assert np.abs(again[0] - first[0]).max() > 0.1


def test_few_batch_sizes_are_compiled_however_many_samples_go_on():
    net = filled(SPARSE)
    images, _ = random_batch(SPARSE, 16)

    def keep(count):
        answers = net.anytime(images)
        next(answers)
        return answers.send(np.arange(count))

    for count in (8, 4, 2, 1):
        keep(count)
    assert compiled_sizes(lambda: [keep(count) for count in range(1, 9)]) == 0
    assert keep(5).shape == (5, SPARSE.num_classes)


@pytest.mark.parametrize("spec", [SMALL, DENSE, MULTISCALE], ids=lambda spec: spec.name)
def test_recomputation_changes_nothing_but_memory(spec):
    """Statistics among what must not change: they move once a step, not twice."""
    batch = random_batch(spec)
    probe = JaxProbe()
    plain, other = (filled(spec, checkpoint=checkpoint) for checkpoint in (False, True))
    logits, gradients = probe.gradients(plain, *batch)
    again, recomputed = probe.gradients(other, *batch)
    assert_close(again, logits)
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            recomputed[name], gradient, rtol=0, atol=1e-5 * largest, err_msg=name
        )
    before, moved, found = random_weights(spec), plain.dump_weights(), other.dump_weights()
    for name in spec.statistics():
        assert (moved[name] != before[name]).any(), name
        np.testing.assert_allclose(found[name], moved[name], rtol=1e-4, atol=1e-5, err_msg=name)


def temporary_bytes(run, *arguments):
    return nnx.jit(run).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def training_bytes(spec, *, checkpoint):
    net = AnytimeNet(spec, checkpoint=checkpoint)

    def step(net, x):
        return nnx.grad(lambda net: sum(logits.sum() for logits in net(x)))(net)

    return temporary_bytes(step, net, jnp.zeros((32, *spec.input_shape)))


@pytest.mark.parametrize(
    "spec",
    [families.denseann(4, 8, input_shape=(16, 16, 3)), families.msdnet(9, input_shape=(16, 16, 3))],
    ids=lambda spec: spec.name,
)
def test_recomputation_saves_memory(spec):
    with_it, without = (training_bytes(spec, checkpoint=c) for c in (True, False))
    assert with_it < 0.7 * without


def test_memory_of_dense_blocks_in_inference_grows_no_faster_than_their_depth():
    def inference_bytes(depth):
        spec = families.denseann(depth, 4, input_shape=(16, 16, 3))
        net = AnytimeNet(spec)
        net.eval()
        return temporary_bytes(lambda net, x: net(x), net, jnp.zeros((32, *spec.input_shape)))

    few, more, many = (inference_bytes(depth) for depth in (2, 4, 8))
    assert many - more < 3 * (more - few)  # the depth added doubles; its square would be fourfold


@all_kinds
def test_a_split_and_merged_network_answers_the_same(spec):
    net = filled(spec)
    images, _ = random_batch(spec)
    expected = JaxProbe().predict(net, images)
    graph, state = nnx.split(net)
    assert_close(JaxProbe().predict(nnx.merge(graph, state), images), expected, 1e-6)


def test_a_deep_copy_is_independent():
    net = filled(SPARSE)
    other = copy.deepcopy(net)
    other.load_weights(random_weights(SPARSE, seed=5))
    assert_same(net.dump_weights(), random_weights(SPARSE))


def test_an_orbax_checkpoint_gives_the_weights_back(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    net = filled(SMALL)
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "net", nnx.to_pure_dict(nnx.state(net)))
    other = AnytimeNet(SMALL)
    with orbax.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "net", nnx.to_pure_dict(nnx.state(other)))
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(other, state)
    assert_same(other.dump_weights(), random_weights(SMALL))


def test_weights_of_lower_precision_are_dumped_in_float32():
    net = filled(SMALL)
    nnx.update(net, jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(net)))
    for name, given in random_weights(SMALL).items():
        found = net.dump_weights()[name]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.asarray(jnp.bfloat16(given), np.float32), name)


@pytest.mark.parametrize("kept", [[0.0, 1.0], [[0]], [True, False], [4], [-1]])
def test_what_are_no_positions_in_the_batch_is_refused(kept):
    answers = filled(SMALL).anytime(random_batch(SMALL)[0])
    next(answers)
    with pytest.raises(ValueError, match="positions in the current batch of 4"):
        answers.send(kept)
