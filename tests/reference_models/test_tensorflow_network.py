"""The networks of Keras in TensorFlow's own loops, functions and files."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from support.networks.contract import NetworkContract, all_kinds, assert_same

from loss_balance.experiments.verification.probes import random_batch, random_weights
from loss_balance.experiments.verification.small_networks import DENSE, MULTISCALE, SMALL, SPARSE
from loss_balance.reference_models import families

tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

import keras

from loss_balance.backends.tensorflow import balance_model
from loss_balance.experiments.verification.probes.keras import TensorFlowProbe, cross_entropies
from loss_balance.reference_models.tensorflow import AnytimeNet


def recording(net):
    """Names of the parts as they are called: in a compiled network, as they are traced."""
    run = []
    for part in net.layers:

        def call(*args, part=part, given=part.call, **options):
            run.append(part.name)
            return given(*args, **options)

        part.call = call
    return run


class TestTensorFlow(NetworkContract):
    probe = TensorFlowProbe()

    def parts_run(self, net, images, exits):
        run = recording(net)
        answers = net.anytime(images)
        for _ in range(exits):
            next(answers)
        return run


def filled(spec, seed=1, **options):
    net = AnytimeNet(spec, **options)
    net.load_weights(random_weights(spec, seed))
    return net


def losses_and_gradients(net, images, labels):
    with tf.GradientTape() as tape:
        losses = cross_entropies(net(images, training=True), labels)
        total = tf.add_n(losses)
    return losses, tape.gradient(total, [v.value for v in net.trainable_variables])


def assert_close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(scale, 1e-6))


def test_mixed_precision_computes_in_bfloat16_and_keeps_variables_in_float32():
    images, _ = random_batch(SPARSE)
    expected = filled(SPARSE)(images)
    net = filled(SPARSE, dtype="mixed_bfloat16")
    assert {v.dtype for v in net.variables} == {"float32"}
    assert net.unit0.conv1(tf.cast(net.stem(images), "bfloat16")).dtype == tf.bfloat16
    for found, wanted in zip(net(images), expected, strict=True):
        assert found.dtype == tf.float32
        assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


@pytest.mark.parametrize("spec", [SMALL, DENSE, MULTISCALE], ids=lambda spec: spec.name)
@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_recomputation_changes_nothing_but_memory(spec, how):
    """Statistics among what must not change: they move once a step, not twice."""
    images, labels = random_batch(spec)
    nets = [filled(spec, checkpoint=checkpoint) for checkpoint in (False, True)]
    results = []
    for net in nets:

        def step(net=net):
            return losses_and_gradients(net, images, labels)

        run = step if how == "eager" else tf.function(step, jit_compile=how == "xla")
        losses, gradients = run()
        results.append([np.array(losses), [g.numpy() for g in gradients]])
    (losses, gradients), (again, recomputed) = results
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    largest = max(np.abs(g).max() for g in gradients)
    for found, wanted in zip(recomputed, gradients, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * largest)
    plain, other = (net.dump_weights() for net in nets)
    for name in spec.statistics():
        assert (plain[name] != random_weights(spec)[name]).any(), name
        np.testing.assert_allclose(other[name], plain[name], rtol=1e-4, atol=1e-5, err_msg=name)


PEAK = """
import re
from pathlib import Path
import tensorflow as tf
from loss_balance.reference_models import families
from loss_balance.reference_models.tensorflow import AnytimeNet

net = AnytimeNet(families.denseann(6, 8, period=3), checkpoint={checkpoint})

@tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3))])
def step(x):
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(logits) for logits in net(x, training=True)])
    return tape.gradient(total, [v.value for v in net.trainable_variables])

step(tf.zeros((2, 32, 32, 3)))


def peak():  # of this process; getrusage would begin with what its parent had
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])


before = peak()
step(tf.zeros((64, 32, 32, 3)))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_recomputation_saves_memory():
    """The rise of a process' peak in a step of batch 64: 0.60 of it when this was written.

    What is alive at once depends on how TensorFlow schedules: 0.34 to 0.88 in seventeen tries, and
    the same network differs from itself by 1.2. So one of three must show it.
    """

    def rise(checkpoint):
        code = PEAK.replace("{checkpoint}", str(checkpoint))
        return int(subprocess.check_output([sys.executable, "-c", code]))

    assert any(rise(True) < 0.75 * rise(False) for _ in range(3))


@pytest.mark.parametrize("depth", [4, 16])
def test_maps_die_as_soon_as_nothing_reads_them(depth):
    """So the memory of dense blocks in inference grows with their depth, not with its square."""
    spec = families.denseann(depth, 4, 3, input_shape=(8, 8, 3))
    net = AnytimeNet(spec)
    made, most = [], 0
    for i in range(len(spec.units)):
        unit = getattr(net, f"unit{i}")

        def call(*args, given=unit.call, **options):
            nonlocal most
            y = given(*args, **options)
            made.append(weakref.ref(y))
            alive = [ref() for ref in made if ref() is not None]
            most = max(most, len(alive))
            return y

        unit.call = call
    gc.disable()  # what waits for the collector is alive
    try:
        net(random_batch(spec)[0])
    finally:
        gc.enable()
    assert len(made) == len(spec.units)
    assert most <= 3


def test_anytime_traces_once_for_all_batch_sizes_and_weights():
    net = filled(SPARSE)
    images, _ = random_batch(SPARSE, 8)
    run = recording(net)
    first = list(net.anytime(images))
    traced = len(run)
    assert traced == 1 + len(SPARSE.units) + len(SPARSE.exits)
    answers = net.anytime(images[:5])
    next(answers)
    answers.send([3, 1])
    list(answers)
    net.load_weights(random_weights(SPARSE, seed=7))
    others = list(net.anytime(images))
    assert len(run) == traced
    assert_close(others, TensorFlowProbe().predict(net, images))
    assert np.abs(others[0] - first[0]).max() > 0.1


def test_anytime_can_be_part_of_a_function():
    net = filled(SPARSE)
    images, _ = random_batch(SPARSE)
    second = tf.function(lambda x: list(zip(range(2), net.anytime(x), strict=False))[1][1])
    assert_close([second(images)], [net(images)[1]])


def test_fit_balances_the_exits_by_their_names():
    net = AnytimeNet(SPARSE)
    count = len(SPARSE.exits)
    assert net.output_names == [f"exit{i}" for i in SPARSE.exits]
    model = balance_model(net, count)
    loss = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(count)]
    model.compile(optimizer="sgd", loss=loss)
    images, labels = random_batch(SPARSE, 16)
    history = model.fit(images, [labels] * count, epochs=2, batch_size=8, verbose=0).history
    assert {f"loss_weight/exit{i}" for i in SPARSE.exits} < set(history)
    assert max(history[f"loss_weight/exit{i}"][-1] for i in SPARSE.exits) == pytest.approx(1.0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_trains_in_mixed_bfloat16(jit_compile):
    net = AnytimeNet(SMALL, dtype="mixed_bfloat16", checkpoint=True)
    count = len(SMALL.exits)
    model = balance_model(net, count)
    loss = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(count)]
    model.compile(keras.optimizers.SGD(0.02), loss=loss, jit_compile=jit_compile)
    images, labels = random_batch(SMALL, 8)
    history = model.fit(images, [labels] * count, epochs=5, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {array.dtype for array in net.dump_weights().values()} == {np.dtype("float32")}
    assert {variable.dtype for variable in net.variables} == {"float32"}


@all_kinds
def test_a_saved_model_answers_the_same(spec, tmp_path):
    net = filled(spec)
    images, _ = random_batch(spec)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert loaded.spec == spec
    assert_same(loaded.dump_weights(), net.dump_weights())
    assert_close(loaded.anytime(images), net(images))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_weights_are_dumped_in_float32_or_wider(dtype):
    net = filled(SPARSE, dtype=dtype)
    wide = "float64" if dtype == "float64" else "float32"
    for name, given in random_weights(SPARSE).items():
        found = net.dump_weights()[name]
        assert found.dtype == wide
        np.testing.assert_array_equal(found, tf.cast(tf.cast(given, dtype), wide), err_msg=name)


@pytest.mark.parametrize(
    "kept", [np.array([1, 3], np.uint8), np.array([1, 3]), [1, 3], tf.constant([1, 3])], ids=repr
)
def test_the_samples_to_keep_can_be_any_integers(kept):
    net, (images, _) = filled(SPARSE), random_batch(SPARSE)
    answers = net.anytime(images)
    next(answers)
    assert_close([answers.send(kept)], [net(images)[1].numpy()[[1, 3]]])


def test_anytime_goes_on_with_one_sample_less_each_time_without_another_trace():
    net, (images, _) = filled(DENSE), random_batch(DENSE, 5)
    list(net.anytime(images))
    run, answers, found = recording(net), net.anytime(images), []
    for k in range(len(DENSE.exits)):
        found.append(answers.send(np.arange(1, len(found[-1])) if k else None))
    assert not run
    assert_close(found, [logits[k:] for k, logits in enumerate(net(images))])


def test_anytime_reads_the_weights_of_now():
    """However they changed: set, trained, or read from a file."""
    net, (images, _) = filled(SPARSE), random_batch(SPARSE)
    before = [logits.numpy() for logits in net.anytime(images)]
    optimizer = keras.optimizers.SGD(0.1)
    net.save_weights("first.weights.h5")
    ones = [tf.ones(v.shape) for v in net.trainable_variables]
    for change in (
        lambda: net.set_weights([w + 0.1 for w in net.get_weights()]),
        lambda: optimizer.apply(ones, net.trainable_variables),
        lambda: net(images, training=True),  # the statistics
        lambda: net.load_weights("first.weights.h5"),
    ):
        change()
        found = [logits.numpy() for logits in net.anytime(images)]
        assert_close(found, net(images))
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(found, before, strict=True))
        before = found


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_no_gradient_flows_through_anytime(wrap):
    net, (images, _) = filled(SPARSE), random_batch(SPARSE)
    list(net.anytime(images))
    found = []

    def run():
        with tf.GradientTape() as tape:
            net(images, training=True)  # so that the tape watches all variables
            total = tf.add_n([tf.reduce_sum(logits) for logits in net.anytime(images)])
        found.extend(tape.gradient(total, [v.value for v in net.trainable_variables]))

    wrap(run)()
    assert set(found) == {None}


def test_images_of_another_shape_are_refused_before_anything_is_computed():
    net, wrong = AnytimeNet(SPARSE), np.zeros((4, 2, 12, 8), np.float32)
    run = recording(net)
    for call in (net, net.anytime, tf.function(net), net.predict_on_batch):
        with pytest.raises(ValueError, match=r"\(B, 12, 8, 2\), got \(4, 2, 12, 8\)"):
            call(wrong)
    assert not run


def test_a_deep_copy_is_independent():
    net, (images, _) = filled(SPARSE), random_batch(SPARSE)
    expected = list(net.anytime(images))
    other = copy.deepcopy(net)
    assert_close(other.anytime(images), expected, 0.0)
    other.load_weights(random_weights(SPARSE, seed=5))
    assert_close(net.anytime(images), expected, 0.0)


def test_a_network_that_is_dropped_leaves_no_memory_behind():
    net, (images, _) = filled(SMALL), random_batch(SMALL)
    list(net.anytime(images))
    variables = [weakref.ref(v.value) for v in net.variables]
    del net
    gc.collect()
    assert {variable() for variable in variables} == {None}
