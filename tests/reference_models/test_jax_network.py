from __future__ import annotations

import copy
import itertools
import math
from itertools import accumulate

import numpy as np
import pytest
from support.networks.contract import (
    COUNTS,
    NetworkContract,
    all_kinds,
    assert_same,
    counted,
    random_batch,
    random_weights,
)

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
import optax
from jax import monitoring
from jax.extend.core import ClosedJaxpr
from support.balancers.jax_tools import compiled_quickly, cosine, restore, save

from loss_balance.experiments.verification.probes.jax import JaxProbe
from loss_balance.experiments.verification.small_networks import SMALL, SPARSE
from loss_balance.reference_models import families
from loss_balance.reference_models.jax import AnytimeNet
from loss_balance.reference_models.jax import units as jax_units


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with compiled_quickly():
        yield


def filled(spec, **options):
    net = AnytimeNet(spec, seed=None, **options)
    net.load_weights(random_weights(spec))
    net.eval()
    return net


@pytest.fixture
def net():
    return filled(SPARSE)


@pytest.fixture
def images():
    return jnp.asarray(random_batch(SPARSE)[0])


def recorded(patch, run):
    """`run(part, *inputs)` is called before every call of a part."""

    def recorder(call):
        def recording(part, *inputs):
            run(part, *inputs)
            return call(part, *inputs)

        return recording

    for kind in jax_units.MODULES.values():
        patch.setattr(kind, "__call__", recorder(kind.__call__))


class TestJax(NetworkContract):
    probe = JaxProbe()

    def parts_run(self, net, images, exits):
        """The modules called while tracing, with all inner compilation switched off."""
        run = []
        named = {"stem": net.stem}
        named |= {f"unit{i}": unit for i, unit in enumerate(net.units)}
        named |= {f"exit{i}": head for i, head in net.exits.items()}
        for name, part in named.items():
            part.label = name  # carried along when NNX takes modules apart and together

        def consume(images):
            answers = net.anytime(images)
            return [next(answers) for _ in range(exits)]

        with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
            recorded(patch, lambda part, *_: run.append(part.label))
            jax.eval_shape(consume, images)
        return run


def equations(jaxpr):
    """All of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield from equations(value.jaxpr)


def multiply_adds(jaxpr):
    total = 0
    for equation in equations(jaxpr):
        out = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            total += out * math.prod(equation.invars[1].aval.shape[:3])  # HWI
        elif equation.primitive.name == "dot_general":
            total += out * equation.invars[1].aval.shape[0]
    return total


COUNTED = (
    "resann-7-16/10",
    "resann26/1000",
    "denseann-12-16-bottleneck-0-reduction-1.0/10",
    "msdnet32/1000",
)


@pytest.mark.parametrize("key", COUNTED)
def test_operations_between_exits_equal_the_counts(key):
    spec = counted(key)
    graph, state = nnx.split(AnytimeNet(spec, seed=None))
    image = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
    traced = jax.make_jaxpr(lambda state, x: list(nnx.merge(graph, state).anytime(x)))(state, image)
    compiled = [e.params["jaxpr"].jaxpr for e in traced.jaxpr.eqns if "jaxpr" in e.params]
    segments = filter(None, map(multiply_adds, compiled))
    assert list(accumulate(segments)) == COUNTS[key]["multiply_adds"]


@all_kinds
def test_bfloat16_computes_in_bfloat16_with_parameters_in_float32(spec):
    half, whole = filled(spec, dtype=jnp.bfloat16), filled(spec)
    images, _ = random_batch(spec)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype("float32")}
    graph, state = nnx.split(half)
    traced = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, images)
    convolved = [
        {v.aval.dtype for v in (*e.invars, *e.outvars)}
        for e in equations(traced.jaxpr)
        if e.primitive.name == "conv_general_dilated"
    ]
    assert len(convolved) == sum(len(shape) == 4 for shape in spec.parameters().values())
    assert all(dtypes == {jnp.dtype("bfloat16")} for dtypes in convolved)
    expected = JaxProbe().predict(whole, images)
    for found, logits in zip(JaxProbe().predict(half, images), expected, strict=True):
        assert found.dtype == np.float32
        assert np.abs(found - logits).max() < 0.03 * np.abs(logits).max()


def test_bfloat16_trains_with_gradients_and_statistics_in_float32():
    half, whole = filled(SMALL, dtype=jnp.bfloat16), filled(SMALL)
    batch = random_batch(SMALL, size=4)
    _, found = JaxProbe().gradients(half, *batch)
    _, wanted = JaxProbe().gradients(whole, *batch)
    assert {array.dtype for array in found.values()} == {np.dtype("float32")}
    assert cosine(found, wanted) > 0.95
    moved = whole.dump_weights()
    for name, array in half.dump_weights().items():
        np.testing.assert_allclose(array, moved[name], rtol=0.01, atol=0.01, err_msg=name)


class Compilations:
    """The number of programs compiled inside a `with`."""

    def __enter__(self):
        self.count = 0
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count += event.endswith("backend_compile_duration")


def test_nothing_is_compiled_twice_for_other_weights_and_images():
    spec = families.resann(1, 4, 6, input_shape=(8, 12, 3))  # another test's would be compiled
    net = filled(spec)
    optimizer = nnx.Optimizer(net, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(net, optimizer, images):
        gradients = nnx.grad(lambda net: sum((x**2).mean() for x in net(images)))(net)
        optimizer.update(net, gradients)

    def everything(seed):
        net.load_weights(random_weights(spec, seed))
        images = random_batch(spec, size=4)[0] * seed
        net.train()
        train_step(net, optimizer, images)
        net.eval()
        JaxProbe().predict(net, images)
        answers = net.anytime(images)
        return [*next(answers), *answers.send(np.array([1, 2])), *next(answers)]

    with Compilations() as first:
        everything(1)
    with Compilations() as again:
        everything(2)
    assert first.count > 5
    assert again.count == 0


def test_send_compiles_at_most_the_powers_of_two_below_the_batch():
    spec = families.resann(1, 4, 7, input_shape=(8, 12, 3))
    net, images = filled(spec), random_batch(spec, size=11)[0]
    expected = JaxProbe().predict(net, images)[1]
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        recorded(patch, lambda part, x: sizes.append(len(x)) if part is not net.stem else None)
        for kept in range(12):
            answers = net.anytime(images)
            next(answers)
            found = answers.send(np.arange(11)[::-1][:kept])
            np.testing.assert_allclose(found, expected[::-1][:kept], rtol=1e-4, atol=1e-5)
    # At full size the stem and all before the first exit; then a unit and a head for each size.
    assert sizes[:3] == [11, 11, 11]
    assert sorted(sizes[3:]) == [size for size in (1, 2, 4, 8, 11) for _ in range(2)]


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, jnp.int32, list])
def test_the_samples_to_keep_can_be_any_integers(net, images, kind):
    expected = JaxProbe().predict(net, images)[1][[1, 3]]
    answers = net.anytime(images)
    next(answers)
    kept = [1, 3] if kind is list else (jnp if kind is jnp.int32 else np).array([1, 3], kind)
    np.testing.assert_allclose(answers.send(kept), expected, rtol=1e-4, atol=1e-5)


def test_anytime_sees_what_has_been_replaced_since_it_was_last_asked(net, images):
    other = filled(SPARSE)
    other.load_weights(random_weights(SPARSE, seed=5))

    def same_as_a_call():
        found, expected = list(net.anytime(images)), JaxProbe().predict(net, images)
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
        return np.asarray(found[-1])

    seen = [same_as_a_call()]
    net.units[1] = other.units[1]
    seen.append(same_as_a_call())
    net.units[0].conv1.kernel = other.units[0].conv1.kernel
    seen.append(same_as_a_call())
    net.units[0].conv2.kernel.set_value(other.units[0].conv2.kernel.get_value())
    seen.append(same_as_a_call())
    net.units[0].norm1.epsilon = 0.5
    seen.append(same_as_a_call())
    for one, two in itertools.pairwise(seen):
        assert np.abs(one - two).max() > 1e-3


def test_anytime_predicts_as_in_evaluation_whatever_mode_is_set(net, images):
    expected, before = JaxProbe().predict(net, images), net.dump_weights()
    net.train()
    for found, logits in zip(net.anytime(images), expected, strict=True):
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    assert_same(net.dump_weights(), before)
    assert not net.units[0].norm1.use_running_average


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_weights_are_dumped_in_float32_or_wider(net, dtype):
    with jax.enable_x64(True):
        for _, variable in nnx.iter_graph(net):
            if isinstance(variable, nnx.Variable):
                variable.set_value(variable.get_value().astype(dtype))
        found = net.dump_weights()
        net.load_weights(random_weights(SPARSE, seed=3))
        assert {v.dtype for v in jax.tree.leaves(nnx.state(net))} == {jnp.dtype(dtype)}
    for name, array in random_weights(SPARSE).items():
        assert found[name].dtype == (np.float64 if dtype == jnp.float64 else np.float32)
        np.testing.assert_array_equal(found[name], array.astype(dtype).astype(np.float64))


def test_a_deep_copy_is_independent(net):
    other = copy.deepcopy(net)
    assert_same(other.dump_weights(), net.dump_weights())
    other.load_weights(random_weights(SPARSE, seed=5))
    assert_same(net.dump_weights(), random_weights(SPARSE))
    assert_same(other.dump_weights(), random_weights(SPARSE, seed=5))


def test_a_network_taken_apart_and_put_together_predicts_the_same(net, images):
    graph, parameters, statistics = nnx.split(net, nnx.Param, nnx.BatchStat)
    assert len(jax.tree.leaves(parameters)) == len(SPARSE.parameters())
    assert len(jax.tree.leaves(statistics)) == len(SPARSE.statistics())
    other = nnx.merge(graph, parameters, statistics)
    assert other.spec == SPARSE
    for found, logits in zip(
        JaxProbe().predict(other, images), JaxProbe().predict(net, images), strict=True
    ):
        np.testing.assert_array_equal(found, logits)


def test_a_network_without_weights_draws_none_and_takes_a_checkpoint(net, tmp_path, monkeypatch):
    save(nnx.to_pure_dict(nnx.state(net)), tmp_path / "net")
    monkeypatch.delattr("loss_balance.reference_models.jax.net.initialise")
    empty = AnytimeNet(SPARSE, seed=None)
    state = nnx.state(empty)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))
    nnx.replace_by_pure_dict(state, restore(tmp_path / "net", nnx.to_pure_dict(nnx.state(net))))
    nnx.update(empty, state)
    assert_same(empty.dump_weights(), random_weights(SPARSE))


def test_weights_stay_on_the_devices_they_were_on(net):
    device = jax.devices()[-1]
    nnx.update(net, jax.device_put(nnx.state(net), device))
    net.load_weights(random_weights(SPARSE, seed=6))
    assert {d for leaf in jax.tree.leaves(nnx.state(net)) for d in leaf.devices()} == {device}
    assert_same(net.dump_weights(), random_weights(SPARSE, seed=6))


def test_arrays_that_are_no_numbers_change_nothing(net):
    wrong = random_weights(SPARSE, seed=8)
    wrong["exit2.linear.bias"] = np.array(list("abcde"))
    with pytest.raises(ValueError, match="could not convert string"):
        net.load_weights(wrong)
    assert_same(net.dump_weights(), random_weights(SPARSE))


def test_images_with_channels_in_front_are_refused(net):
    with pytest.raises(ValueError, match=r"\(B, 12, 8, 2\), got \(4, 2, 12, 8\)"):
        net.anytime(jnp.zeros((4, 2, 12, 8)))  # before the first exit is asked for
