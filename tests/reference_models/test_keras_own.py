"""Early exits on Keras models of one's own, on whatever backend Keras runs."""

from __future__ import annotations

import math

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

keras = pytest.importorskip("keras")
from keras import layers, ops

from loss_balance import Static
from loss_balance.backends.tensorflow import Balancer, balance_model
from loss_balance.experiments.verification.small_networks import CHAINS
from loss_balance.reference_models.tensorflow import AnytimeNet, MultiExitNet, with_exits

BACKEND = keras.backend.backend()
ONE_SCALE = [spec for spec in CHAINS if len(spec.features()[0]) == 1]


def small_backbone():
    """The contract's; its layers but those it names have Keras' own names."""
    x = images = keras.Input(INPUT_SHAPE)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU(name="early")(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, activation="relu", name="middle")(x)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, activation="relu", name="late")(x)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(CLASSES)(x))


def residual_backbone():
    """`inner` is within a block whose input goes around it; the image goes around all."""
    images = keras.Input(INPUT_SHAPE)
    before = layers.Conv2D(4, 3, padding="same", name="before")(images)
    inner = layers.Conv2D(4, 3, padding="same", name="inner")(before)
    block = layers.Add(name="block")([inner, before])
    joined = layers.Concatenate(name="joined")([ops.relu(block), images])
    return keras.Model(images, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(joined)))


def filled(exits=EXITS, backbone=small_backbone):
    net = with_exits(backbone(), exits)
    net.load_weights(random_weights_like(net.dump_weights()))
    return net


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def assert_close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=tolerance, atol=tolerance)


def gradients_of(total, net):
    """Of `total()`, by the net's trainable variables, on any backend."""
    variables = net.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = total()
        return tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
    if BACKEND == "torch":
        import torch

        values = [v.value for v in variables]
        found = torch.autograd.grad(total(), values, allow_unused=True)
        return [torch.zeros_like(v) if g is None else g for v, g in zip(values, found, strict=True)]
    import jax

    def of(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return total()

    return jax.grad(of)([v.value for v in variables])


class TestKeras(OwnExitsContract):
    def make(self, exits=EXITS):
        backbone = small_backbone()
        return with_exits(backbone, exits), lambda images: backbone(images, training=False)

    def own_head(self, shape):
        height, width, channels, classes = (*shape, CLASSES)[:4]
        head = [layers.GlobalAveragePooling2D(), layers.Dense(classes)]
        return keras.Sequential([keras.Input((height, width, channels)), *head])

    def to_native(self, images):
        return ops.convert_to_tensor(images)

    def to_numpy(self, logits):
        return to_numpy(logits)

    def call(self, net, images, fork=None):
        return net(images, training=False, fork=fork)

    def computed(self, net, images, exits):
        """The layers that are called: in a compiled network, as they are traced."""
        run = []
        for name in STAGES:
            layer = net.backbone.get_layer(name)

            def call(*args, name=name, given=layer.call, **options):
                run.append(name)
                return given(*args, **options)

            layer.call = call
        answers = net.anytime(images)
        for _ in range(exits):
            next(answers)
        return run

    def gradients(self, net, images, labels, coefficients, pulls=None):
        fork = None if pulls is None else Balancer(Static(pulls), equilibrium=True).fork
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def total():
            answers = net(images, training=False, fork=fork)
            pairs = zip(coefficients, answers, strict=True)
            return sum(c * cross_entropy(labels, logits) for c, logits in pairs)

        names = {id(variable): name for name, variable in net.named_variables()}
        found = zip(net.trainable_variables, gradients_of(total, net), strict=True)
        return {names[id(variable)]: to_numpy(gradient) for variable, gradient in found}


# --- cutting ---


def test_where_several_tensors_cross_all_are_handed_on_and_the_head_reads_the_first():
    backbone = residual_backbone()
    net = with_exits(backbone, ["inner", "block"])
    images, given = batch()[0], []

    def fork(features, index):
        given.append([x.shape[-1] for x in features] if isinstance(features, list) else features)
        return features, features

    logits = net(images, training=False, fork=fork)
    assert [sorted(channels) for channels in given[:2]] == [[3, 4, 4], [3, 4]]
    assert_close([logits[-1]], [backbone(images)], 1e-6)
    inner = keras.Model(backbone.input, backbone.get_layer("inner").output)
    assert_close([logits[0]], [net.heads[0](inner(images))])
    answers = net.anytime(images)
    next(answers)
    assert_close([answers.send([2, 0]), next(answers)], [to_numpy(x)[[2, 0]] for x in logits[1:]])


def test_layers_side_by_side_can_be_in_any_order():
    images = keras.Input(INPUT_SHAPE)
    left = layers.Conv2D(4, 1, name="left")(images)
    right = layers.Conv2D(4, 1, name="right")(images)
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([left, right]))
    backbone = keras.Model(images, layers.Dense(CLASSES)(pooled))
    for names in (["left", "right"], ["right", "left"]):
        net = with_exits(backbone, names)
        first, second, _ = (cost.multiply_adds for cost in net.costs())
        assert first == second - first
        assert_close([net(batch()[0])[-1]], [backbone(batch()[0])])


def test_a_built_sequential_model_has_a_graph_too():
    parts = [layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(CLASSES)]
    net = with_exits(keras.Sequential([keras.Input(INPUT_SHAPE), *parts]), ["conv"])
    assert [x.shape for x in map(to_numpy, net(batch()[0]))] == [(4, CLASSES)] * 2


def test_a_nested_model_is_one_layer():
    images = keras.Input(INPUT_SHAPE)
    inner = keras.Sequential([layers.Conv2D(4, 3, name="deep"), layers.ReLU()], name="inner")
    x = layers.GlobalAveragePooling2D(name="pool")(inner(images))
    backbone = keras.Model(images, layers.Dense(CLASSES)(x))
    assert with_exits(backbone, ["inner"]).names == ("inner", "output")
    words = "exits must be layers in the outer graph, got 'deep', which is within 'inner'"
    with pytest.raises(ValueError, match=words):
        with_exits(backbone, ["deep"])
    with pytest.raises(ValueError, match=r"default head must read .*'pool' of shape \(None, 4\)"):
        with_exits(backbone, ["pool"])


def shared():
    x = images = keras.Input(INPUT_SHAPE)
    again = layers.Conv2D(3, 1, name="again")
    x = layers.GlobalAveragePooling2D()(again(again(x)))
    return keras.Model(images, layers.Dense(CLASSES)(x))


def ending_in(*tail, size=INPUT_SHAPE):
    x = images = keras.Input(size)
    for layer in (layers.Conv2D(4, 1, name="conv"), *tail):
        x = layer(x)
    return keras.Model(images, x)


def two_outputs():
    images = keras.Input(INPUT_SHAPE)
    x = layers.Flatten()(images)
    return keras.Model(images, [layers.Dense(CLASSES)(x), layers.Dense(CLASSES)(x)])


class Subclassed(keras.Model):
    pass


def flat(activation=None):
    return layers.Flatten(), layers.Dense(CLASSES, activation=activation, name="top")


@pytest.mark.parametrize(
    ("backbone", "exits", "message"),
    [
        (shared, ["again"], "exits must be layers called once, got 'again', called 2 times"),
        (two_outputs, ["conv"], "one input and one output, .* got 1 inputs and 2 outputs"),
        (Subclassed, ["conv"], "must be functional or a built Sequential, got a Subclassed"),
        (lambda: keras.Sequential([layers.Dense(3)]), ["conv"], "must be functional or a built"),
        (lambda: 3, ["conv"], "must be a keras.Model, got a int"),
        (ending_in, ["conv"], r"output must be logits \(B, num_classes\), got \(None, 8, 8, 4\)"),
        (
            lambda: ending_in(*flat()),
            ["conv", "top"],
            "always is the last, got 'top'",
        ),
        (lambda: ending_in(*flat("softmax")), ["conv"], "must be logits, got the softmax of 'top'"),
        (lambda: ending_in(*flat(), layers.Softmax()), ["conv"], "got the softmax of 'softmax"),
        (
            lambda: ending_in(layers.GlobalAveragePooling2D(), size=(None, None, 3)),
            ["conv"],
            r"must be images \(B, H, W, C\) of one size, got \(B, None, None, 3\)",
        ),
    ],
)
def test_what_makes_no_network_is_refused(backbone, exits, message):
    with pytest.raises(ValueError, match=message):
        with_exits(backbone(), exits)


def test_one_head_for_two_exits_is_refused():
    head = TestKeras().own_head((8, 8, 4))
    with pytest.raises(ValueError, match="heads must be a layer for each exit"):
        with_exits(residual_backbone(), {"before": head, "inner": head})


# --- as a model of Keras ---


def test_a_saved_model_answers_the_same(tmp_path):
    net, images = filled(), batch()[0]
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert isinstance(loaded, MultiExitNet)
    assert loaded.names == net.names
    assert_same(loaded.dump_weights(), net.dump_weights())
    assert_close(loaded.anytime(images), net(images, training=False))
    net.save_weights(tmp_path / "net.weights.h5")
    other = filled()
    other.load_weights(random_weights_like(other.dump_weights(), seed=4))
    other.load_weights(tmp_path / "net.weights.h5")
    assert_same(other.dump_weights(), net.dump_weights())


def test_a_config_makes_the_same_network():
    net = with_exits(small_backbone(), {"early": TestKeras().own_head((8, 8, 8)), "middle": None})
    other = MultiExitNet.from_config(net.get_config())
    assert list(other.dump_weights()) == list(net.dump_weights())
    assert other.costs() == net.costs()


@pytest.mark.parametrize("equilibrium", [False, True])
def test_fit_balances_the_exits_by_their_names(equilibrium):
    keras.utils.set_random_seed(0)
    net = with_exits(small_backbone(), EXITS)
    model = balance_model(net, 3, equilibrium=equilibrium)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=[cross_entropy] * 3)
    images, labels = batch(16)
    before = net.dump_weights()
    found = model.fit(images, [labels] * 3, epochs=8, batch_size=16, verbose=0).history
    assert {f"loss_weight/{name}" for name in net.names} < set(found)
    assert found["loss_sum"][-1] < found["loss_sum"][0]
    after = net.dump_weights()
    assert not [name for name in before if np.array_equal(after[name], before[name])]
    assert_close(net.anytime(images), net(images, training=False))


def test_a_frozen_layer_stays_as_it_is_and_its_parameters_are_not_counted():
    net = with_exits(small_backbone(), EXITS)
    whole = net.costs()[-1].parameters
    net.backbone.get_layer("late").trainable = False
    assert whole - net.costs()[-1].parameters == 9 * 8 * 16
    net.compile("sgd", loss=["mse"] * 3)
    before = net.dump_weights()
    net.fit(batch()[0], [np.zeros((4, CLASSES))] * 3, verbose=0)
    same = [name for name, array in net.dump_weights().items() if (array == before[name]).all()]
    assert same == ["backbone.late.kernel"]


def test_mixed_precision_rounds_no_image_and_gives_early_logits_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = small_backbone()
    finally:
        keras.config.set_dtype_policy("float32")
    net = with_exits(backbone, EXITS)
    images = batch()[0]
    assert {v.dtype for v in net.variables if v.trainable} == {"float32"}
    logits = net(images, training=False)
    kinds = [keras.backend.standardize_dtype(x.dtype) for x in logits]
    assert kinds == ["float32", "float32", "bfloat16"]  # the last is the model's own
    assert_close([ops.cast(logits[-1], "float32")], [ops.cast(backbone(images), "float32")], 0.0)
    for found, wanted in zip(net.anytime(images), logits, strict=True):
        assert_close([ops.cast(found, "float32")], [ops.cast(wanted, "float32")], 0.02)
    assert net.costs() == with_exits(small_backbone(), EXITS).costs()


def test_names_of_weights_do_not_depend_on_what_was_built_before():
    names = list(filled().dump_weights())
    assert "backbone.conv2d.kernel" in names
    assert "heads.early.linear.bias" in names
    assert list(filled().dump_weights()) == names


def test_two_networks_of_one_backbone_are_independent():
    backbone = residual_backbone()
    config = backbone.get_config()
    first, second = with_exits(backbone, ["inner"]), with_exits(backbone, ["before", "block"])
    images = batch()[0]
    expected = to_numpy(backbone(images))
    assert_close([first(images)[-1], second(images)[-1]], [expected] * 2)
    assert backbone.get_config() == config  # its graph is as it was


# --- costs ---


@pytest.mark.parametrize("spec", ONE_SCALE, ids=lambda spec: spec.name)
def test_a_reference_network_made_of_its_parts_costs_what_its_description_says(spec):
    net = AnytimeNet(spec)
    x = images = keras.Input(spec.input_shape)
    for name in ("stem", *(f"unit{i}" for i in range(len(spec.units)))):
        x = getattr(net, name)(x)
    last = spec.exits[-1]
    backbone = keras.Model(images, getattr(net, f"exit{last}")(x))
    own = with_exits(backbone, {f"unit{i}": getattr(net, f"exit{i}") for i in spec.exits[:-1]})
    assert own.costs() == spec.costs()
    images = np.random.default_rng(0).normal(size=(2, *spec.input_shape)).astype(np.float32)
    assert_close(own.anytime(images), net(images, training=False))


def test_attention_and_grouped_convolutions_are_counted():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(images)
    x = layers.SeparableConv2D(16, 3, padding="same")(x)
    x = layers.Reshape((64, 16))(x)
    x = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    top = layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x))
    net = with_exits(keras.Model(images, top), ["grouped", "attention"])
    grouped = 64 * 9 * 2 * 8
    separable = 64 * 9 * 8 + 64 * 8 * 16
    attention = 4 * 64 * 16 * 16 + 2 * 2 * 64 * 64 * 8
    heads = 8 * CLASSES, 16 * CLASSES
    first = grouped + heads[0]
    second = first + separable + attention + heads[1]
    assert [cost.multiply_adds for cost in net.costs()] == [first, second, second + heads[1]]


def test_exits_on_a_network_of_keras_applications():
    backbone = keras.applications.MobileNetV3Small(
        (64, 64, 3), weights=None, classes=10, classifier_activation=None
    )
    net = with_exits(backbone, ["expanded_conv_2_add", "expanded_conv_6_project_bn"])
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    logits = net(images, training=False)
    assert_close(logits[-1:], [backbone(images, training=False)], 1e-6)
    assert_close(net.anytime(images), logits)
    first, second, last = net.costs()
    assert (first.multiply_adds, second.multiply_adds) == (1_313_264, 2_658_128)
    heads = [channels * 10 + 10 + 2 * channels for channels in (24, 48)]
    backbones = sum(math.prod(variable.shape) for variable in backbone.trainable_variables)
    assert last.parameters == backbones + sum(heads)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's format")
@pytest.mark.parametrize(
    ("backbone", "exits"), [(small_backbone, EXITS), (residual_backbone, ["inner", "block"])]
)
def test_its_export_equals_it(tmp_path, backbone, exits):
    """Each file is compared with the network before the folder is there."""
    from loss_balance.reference_models.keras.exporting import to_savedmodel

    net = with_exits(backbone(), exits)
    written = to_savedmodel(net, tmp_path / "export")
    assert written.difference <= 1e-5
    assert (tmp_path / "export" / "saved_model.pb").is_file()
