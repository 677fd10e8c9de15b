"""Networks with exits of one's own in the commands: made by a function, in one framework."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
from support.experiments.command_line import call, one_line

NETWORK = """
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
OPTIONS = ("--data", "digits", "--epochs", "1")


@pytest.fixture
def network(tmp_path, request):
    """The name of a network in a module of this test's own."""
    module = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(NETWORK.format(width=6))
    return f"{module}:small"


def test_one_is_trained_evaluated_and_asked(network, tmp_path):
    train = ("train", "--network", network, "--scheme", "guided", *OPTIONS, "--out", "run")
    status, said, complaint = call(*train, "--json")
    assert status == 0, complaint
    assert len(json.loads(said)["test_error"]) == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["spec"]["names"] == ["0", "1", "output"]
    assert config["spec"]["kept"]["backbone.0.1.running_mean"] == [4]
    assert "exit" in call("predict", "run", "test:0", "--deadline", "1s")[1]
    status, said, complaint = call("evaluate", "run", "--json")
    assert status == 0, complaint
    assert json.loads(said)["agrees"] == [True] * 3
    message = f"{network} is of torch, which --framework must name, got jax"
    assert message in one_line(*call("evaluate", "run", "--framework", "jax"))


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
    import sys

    del sys.modules[module]
    message = f"{network} must make the network that it made for this run"
    assert message in one_line(*call("evaluate", "run"))


def test_what_is_no_network_with_exits_is_refused(network):
    bare = network.replace(":small", ":bare")
    message = "or return one or a network of with_exits, got Flatten"
    assert message in one_line(*call("train", "--network", bare, *OPTIONS, "--out", "run"))
    message = "is of torch, which --framework must name, got jax"
    framework = ("--framework", "jax")
    assert message in one_line(*call("train", "--network", network, *OPTIONS, *framework))
