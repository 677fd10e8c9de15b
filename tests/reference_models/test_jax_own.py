"""Early exits on stages of one's own, in JAX."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.networks.contract import assert_same
from support.networks.own_contract import (
    CLASSES,
    EXITS,
    INPUT_SHAPE,
    STAGES,
    OwnExitsContract,
    batch,
    random_weights_like,
)

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
import jax.numpy as jnp
import optax
from support.balancers.jax_tools import compiled_quickly

from loss_balance import AdaLoss, Static
from loss_balance.backends.jax import Balancer, fork, init
from loss_balance.experiments.verification.small_networks import CHAINS
from loss_balance.reference_models.counting.jax import multiply_adds
from loss_balance.reference_models.jax import AnytimeNet, with_exits

ONE_SCALE = [spec for spec in CHAINS if len(spec.features()[0]) == 1]
RUN = []  # names of the stages as they are called


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with compiled_quickly():
        yield


class Early(nnx.Module):
    name = "early"

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)

    def __call__(self, x):
        RUN.append(self.name)
        return nnx.relu(self.norm(self.conv(x)))


class Middle(nnx.Module):
    name = "middle"

    def __init__(self, rngs):
        self.conv = nnx.Conv(8, 8, (3, 3), 2, use_bias=False, rngs=rngs)

    def __call__(self, x):
        RUN.append(self.name)
        return nnx.relu(self.conv(x))


class Late(nnx.Module):
    name = "late"

    def __init__(self, rngs):
        self.conv = nnx.Conv(8, 16, (3, 3), use_bias=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x):
        RUN.append(self.name)
        return self.linear(self.dropout(nnx.relu(self.conv(x)).mean((1, 2))))


class Mean(nnx.Module):
    """A head of the user's own."""

    def __init__(self, channels, classes):
        self.linear = nnx.Linear(channels, classes, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(x.mean((1, 2)))


def stages():
    rngs = nnx.Rngs(0)
    return {"early": Early(rngs), "middle": Middle(rngs), "late": Late(rngs)}


class TestJax(OwnExitsContract):
    def make(self, exits=EXITS):
        parts = stages()
        net = with_exits(parts, exits, input_shape=INPUT_SHAPE)
        backbone = nnx.Sequential(*parts.values())
        return net, lambda images: nnx.view(backbone, **EVALUATION)(images)

    def own_head(self, shape):
        _, _, channels, classes = (*shape, CLASSES)[:4]
        return Mean(channels, classes)

    def to_native(self, images):
        return jnp.asarray(images)

    def to_numpy(self, logits):
        return np.asarray(logits)

    def call(self, net, images, fork=None):
        wanted = None if fork is None else lambda features, index: fork(features, index)
        net.eval()
        return net(images, wanted)

    def computed(self, net, images, exits):
        """The modules called while tracing, with all inner compilation switched off."""

        def consume(images):
            answers = net.anytime(images)
            return [next(answers) for _ in range(exits)]

        RUN.clear()
        with jax.disable_jit():
            jax.eval_shape(consume, images)
        return list(RUN)

    def gradients(self, net, images, labels, coefficients, pulls=None):
        net.eval()
        at = None
        if pulls is not None:
            at = partial(fork, state=init(Static(pulls)), scheme=Static(pulls))

        def total(net):
            each = optax.softmax_cross_entropy_with_integer_labels
            losses = [each(logits, labels).mean() for logits in net(jnp.asarray(images), at)]
            return sum(c * loss for c, loss in zip(coefficients, losses, strict=True))

        found = nnx.to_flat_state(nnx.grad(total)(net))
        names = {"stages": STAGES, "heads": net.names}
        return {
            ".".join((part, names[part][index], *rest)): np.asarray(leaf.get_value())
            for (part, index, *rest), leaf in found
        }


EVALUATION = {"use_running_average": True, "deterministic": True}


def test_a_sequence_has_its_places_for_names_and_functions_are_stages_too():
    head = Mean(3, CLASSES)
    parts = [nnx.relu, lambda x: 2.0 * x, Mean(3, CLASSES)]
    net = with_exits(parts, {0: None, "stage1": head}, input_shape=INPUT_SHAPE)
    assert net.names == ("stage0", "stage1", "output")
    images = jnp.asarray(batch()[0])
    net.eval()
    for found, wanted in zip(net.anytime(images), net(images), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net(images)[1], head(2.0 * nnx.relu(images)), rtol=1e-5)


def test_tokens_have_a_default_head():
    rngs = nnx.Rngs(0)
    tokens = lambda x: x.reshape(len(x), 64, 3)  # noqa: E731
    attention = nnx.MultiHeadAttention(1, 3, 6, decode=False, rngs=rngs)
    top = nnx.Sequential(lambda x: x.mean(1), nnx.Linear(3, CLASSES, rngs=rngs))
    net = with_exits({"tokens": tokens, "mix": attention, "top": top}, ["tokens", "mix"],
                     input_shape=INPUT_SHAPE)  # fmt: skip
    assert [logits.shape for logits in net(jnp.zeros((2, *INPUT_SHAPE)))] == [(2, CLASSES)] * 3
    first, second, third = (cost.multiply_adds for cost in net.costs())
    assert first == third - second == 3 * CLASSES
    assert second - first == 4 * 64 * 3 * 6 + 2 * 64 * 64 * 6 + 3 * CLASSES


def test_of_several_arrays_the_head_reads_the_first_and_all_go_on():
    def split(x):
        return [x[:, ::2], x]

    def joined(maps):
        small, large = maps
        return nnx.relu(large).mean((1, 2)) @ jnp.ones((3, CLASSES)) + small.sum((1, 2, 3))[:, None]

    given = []

    def at(features, index):
        given.append(features)
        return features, features

    net = with_exits([split, joined], [0], input_shape=INPUT_SHAPE)
    images = jnp.asarray(batch()[0])
    net.eval()
    logits = net(images, at)
    assert [x.shape for x in given[0]] == [(4, 4, 8, 3), (4, 8, 8, 3)]
    np.testing.assert_allclose(logits[0], net.heads[0](images[:, ::2]))
    answers = net.anytime(images)
    next(answers)
    np.testing.assert_allclose(answers.send([3, 1]), logits[1][jnp.array([3, 1])], rtol=1e-5)


def test_the_last_stage_may_have_a_head_too():
    parts = {"early": Early(nnx.Rngs(0)), "middle": Middle(nnx.Rngs(0))}
    shapes = []

    def made(shape):
        shapes.append(shape)
        return Mean(8, CLASSES)

    net = with_exits(parts, {"early": None, "middle": made}, input_shape=INPUT_SHAPE)
    assert net.names == ("early", "output")
    assert shapes == [(4, 4, 8)]
    assert len(net(jnp.zeros((1, *INPUT_SHAPE)))) == 2
    for heads, message in (
        (["early", "middle"], "the head of the last stage must be given"),
        ({"middle": made}, "exits must name a layer or more before the output"),
    ):
        with pytest.raises(ValueError, match=message):
            with_exits(parts, heads, input_shape=INPUT_SHAPE)


def linear(inputs):
    return nnx.Linear(inputs, CLASSES, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("parts", "heads", "message"),
    [
        ([nnx.relu, nnx.relu], [0], r"output must be logits \(B, num_classes\), got \(1, 8, 8, 3"),
        (
            [nnx.relu, lambda x: [x, x]],
            [0],
            r"must be logits \(B, num_classes\), got a list",
        ),
        ([nnx.relu, Mean(3, 5)], [True], "names of the model's stages, got 'True'"),
        ([nnx.relu, Mean(3, 5)], [7], "names of the model's stages, got 7; close to it: stage0"),
        ([3, Mean(3, 5)], [0], "stages must be modules or functions, got 3"),
        (nnx.relu, [0], "stages must be a mapping or a sequence"),
        ([lambda x: x[:, 0, 0], linear(3)], [0], r"the default head must read maps .* \(1, 3\)"),
    ],
)
def test_what_makes_no_network_is_refused(parts, heads, message):
    with pytest.raises(ValueError, match=message):
        with_exits(parts, heads, input_shape=INPUT_SHAPE)


def test_a_shape_that_is_none_is_refused():
    for shape in ((8, 8), (8, 0, 3)):
        with pytest.raises(ValueError, match="input_shape must be"):
            with_exits([nnx.relu, Mean(3, 5)], [0], input_shape=shape)


@pytest.mark.parametrize(
    "spec", [s for s in CHAINS if len(s.features()[0]) == 1], ids=lambda s: s.name
)
def test_a_reference_network_made_of_its_parts_costs_what_its_description_says(spec):
    net = AnytimeNet(spec)
    parts = {"stem": net.stem} | {f"unit{i}": unit for i, unit in enumerate(net.units)}
    heads = {f"unit{i}": net.exits[str(i)] for i in spec.exits}
    own = with_exits(parts, heads, input_shape=spec.input_shape)
    assert own.costs() == spec.costs()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, *spec.input_shape)), jnp.float32)
    for found, wanted in zip(own.anytime(images), net.anytime(images), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_loops_and_branches_are_counted():
    matrix = jnp.ones((4, 4))

    def run(x):
        x, _ = jax.lax.scan(lambda x, _: (matrix @ x, None), x, length=3)
        return jax.lax.cond(x.sum() > 0, lambda x: matrix @ (matrix @ x), lambda x: matrix @ x, x)

    assert multiply_adds(jax.jit(run), jnp.ones(4)) == (3 + 2) * 16


def test_dropout_and_batch_norm_are_off_in_anytime_whatever_the_mode():
    net = with_exits(stages(), EXITS, input_shape=INPUT_SHAPE)
    net.load_weights(random_weights_like(net.dump_weights()))
    images = jnp.asarray(batch()[0])
    net.eval()
    expected = net(images)
    net.train()
    before = net.dump_weights()
    for found, wanted in zip(net.anytime(images), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert_same(net.dump_weights(), before)


def test_anytime_runs_on_the_weights_and_modules_of_now():
    net = with_exits(stages(), EXITS, input_shape=INPUT_SHAPE)
    images = jnp.asarray(batch()[0])
    before = list(net.anytime(images))
    net.stages[0].conv.kernel.set_value(2.0 * net.stages[0].conv.kernel.get_value())
    net.heads[1] = Mean(8, CLASSES)
    net.eval()
    after = list(net.anytime(images))
    for found, wanted, old in zip(after, net(images), before, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert np.abs(found - old).max() > 1e-4


@pytest.mark.parametrize("equilibrium", [False, True])
def test_it_trains_with_a_balancer(equilibrium):
    net = with_exits(stages(), EXITS, input_shape=INPUT_SHAPE)
    balance = Balancer(AdaLoss(3), equilibrium=equilibrium)
    optimizer = nnx.Optimizer(net, optax.sgd(0.1), wrt=nnx.Param)
    images, labels = map(jnp.asarray, batch(16))

    @nnx.jit
    def step(net, balance, optimizer):
        def total(net, balance):
            each = optax.softmax_cross_entropy_with_integer_labels
            answers = net(images, balance.fork if equilibrium else None)
            losses = [each(logits, labels).mean() for logits in answers]
            return balance(losses), sum(losses)

        gradients, plain = nnx.grad(total, has_aux=True)(net, balance)
        optimizer.update(net, gradients)
        return plain

    losses = [float(step(net, balance, optimizer)) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert len(np.unique(np.asarray(balance.export_state()["weights"]))) == 3


def test_a_network_taken_apart_and_put_together_predicts_the_same():
    net = with_exits(stages(), EXITS, input_shape=INPUT_SHAPE)
    images = jnp.asarray(batch()[0])
    other = nnx.merge(*nnx.split(net))
    assert other.names == net.names
    for found, wanted in zip(other.anytime(images), net.anytime(images), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_its_export_equals_it(tmp_path):
    """Each file is compared with the network before the folder is there."""
    pytest.importorskip("flatbuffers")
    from loss_balance.reference_models.jax.exporting import to_jax

    net = with_exits(stages(), EXITS, input_shape=INPUT_SHAPE)
    written = to_jax(net, tmp_path / "export", platforms=["cpu"])
    assert written.difference <= 1e-5
    assert len(list((tmp_path / "export").glob("*.jax"))) == 6
