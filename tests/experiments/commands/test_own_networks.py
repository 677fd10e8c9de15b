"""Networks with exits of one's own in the commands: made by a function, in one framework."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip("typer")
from support.experiments.command_line import call, one_line

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.own import check_trains, network_of

FRAMEWORK = next((name for name in ("torch", "tensorflow", "jax") if find_spec(name)), None)
if FRAMEWORK is None:
    pytest.skip("no framework is installed here", allow_module_level=True)
OTHER = {"torch": "jax", "tensorflow": "torch", "jax": "torch"}[FRAMEWORK]

TORCH = """
from torch import nn
from loss_balance.reference_models.torch import with_exits

def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU())

def small(num_classes, input_shape):
    width = {width}
    blocks = [block(input_shape[2], 4), block(4, width), block(width, 8)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)]
    return with_exits(nn.Sequential(*blocks, *end), ["0", "1"], input_shape=input_shape)

def bare(num_classes, input_shape):
    return nn.Flatten()
"""

KERAS = """
import keras
from keras import layers
from loss_balance.reference_models.tensorflow import with_exits

def small(num_classes, input_shape):
    x = first = keras.Input(input_shape)
    for k, width in enumerate((4, {width}, 8)):
        x = layers.Conv2D(width, 3, name=f"conv{{k}}")(x)
        x = layers.BatchNormalization(name=f"norm{{k}}")(x)
        x = layers.ReLU(name=str(k))(x)
    x = layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x))
    return with_exits(keras.Model(first, x), ["0", "1"])

def bare(num_classes, input_shape):
    return layers.Flatten()
"""

JAX = """
from flax import nnx
from loss_balance.reference_models.jax import with_exits

class Block(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.conv = nnx.Conv(inputs, outputs, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.drop(self.norm(self.conv(x))))

class End(nnx.Module):
    def __init__(self, classes, rngs):
        self.linear = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.linear(x.mean(axis=(1, 2)))

def small(num_classes, input_shape, seed):
    rngs = nnx.Rngs(seed)
    widths = (input_shape[2], 4, {width}, 8)
    stages = [Block(*pair, rngs) for pair in zip(widths, widths[1:])]
    stages = dict(zip("012", stages)) | dict(end=End(num_classes, rngs))
    return with_exits(stages, ["0", "1"], input_shape=input_shape, rngs=rngs)

def bare(num_classes, input_shape):
    return nnx.Dict()
"""
NETWORK = {"torch": TORCH, "tensorflow": KERAS, "jax": JAX}[FRAMEWORK]
STATISTIC = {
    "torch": "backbone.0.1.running_mean",
    "tensorflow": "backbone.norm0.moving_mean",
    "jax": "stages.0.norm.mean",
}[FRAMEWORK]
BARE = {"torch": "Flatten", "tensorflow": "Flatten", "jax": "Dict"}[FRAMEWORK]
OPTIONS = ("--data", "digits", "--epochs", "1", "--framework", FRAMEWORK)


@pytest.fixture
def network(tmp_path, request):
    """The name of a network in a module of this test's own."""
    module = f"own_{abs(hash((FRAMEWORK, request.node.name)))}"
    (tmp_path / f"{module}.py").write_text(NETWORK.format(width=6))
    return f"{module}:small"


def test_one_is_trained_evaluated_and_asked(network, tmp_path):
    train = ("train", "--network", network, "--scheme", "guided", *OPTIONS, "--out", "run")
    status, said, complaint = call(*train, "--json")
    assert status == 0, complaint
    assert len(json.loads(said)["test_error"]) == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["spec"]["names"] == ["0", "1", "output"]
    assert config["spec"]["kept"][STATISTIC] == [4]
    assert "exit" in call("predict", "run", "test:0", "--deadline", "1s")[1]
    status, said, complaint = call("evaluate", "run", "--json")
    assert status == 0, complaint
    assert json.loads(said)["agrees"] == [True] * 3


@pytest.mark.skipif(FRAMEWORK == "jax", reason="minutes to compile; its networks are cut elsewhere")
def test_one_is_compared_with_itself_cut_after_each_exit(network):
    compare = ("compare", "--network", network, *OPTIONS, "--schemes", "adaloss,opt")
    status, said, complaint = call(*compare, "--out", "study", "--json")
    assert status == 0, complaint
    assert set(json.loads(said)["schemes"]) == {"adaloss", "opt"}


def test_its_exits_are_listed(network):
    status, said, complaint = call("models", network, "--json")
    assert status == 0, complaint
    assert len(json.loads(said)["multiply_adds"]) == 3
    message = "of the library's own, for a network of yours has no description"
    assert message in one_line(*call("models", network, "--draw", "picture.png"))


def test_a_function_that_makes_another_network_now_is_found_out(network, tmp_path):
    assert call("train", "--network", network, *OPTIONS, "--out", "run")[0] == 0
    module = network.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(NETWORK.format(width=7))
    del sys.modules[module]
    message = f"{network} must make the network that it made for this run"
    assert message in one_line(*call("evaluate", "run"))


def test_what_is_no_network_with_exits_is_refused(network):
    bare = network.replace(":small", ":bare")
    message = f"or return one or a network of with_exits, got {BARE}"
    assert message in one_line(*call("train", "--network", bare, *OPTIONS, "--out", "run"))
    with pytest.raises(UserError, match=rf"is of {FRAMEWORK}, .* must name, got {OTHER}"):
        check_trains(network_of(network, 10, (8, 8, 1)), OTHER, "float32")
