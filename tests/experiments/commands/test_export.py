"""`loss-balance export`: a run of any framework as files that answer as its network does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
from support.experiments.command_line import call, one_line
from support.networks.numpy_network import Oracle

from loss_balance.experiments.data.sources import load
from loss_balance.experiments.runs.deployment import exporting
from loss_balance.experiments.runs.trained import read
from loss_balance.reference_models.exports import about as layout

INSTALLED = [name for name in ("torch", "tensorflow", "jax") if find_spec(name)]
if not INSTALLED:
    pytest.skip("no framework is installed here", allow_module_level=True)
NEEDED = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "torch": ("torch",),
    "savedmodel": ("tensorflow",),
    "jax": ("jax", "flatbuffers"),
}


def command(*arguments):
    """The command in a process of its own, for it loads a framework: what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "loss_balance", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on held-out images, which no test changes."""
    folder = tmp_path_factory.mktemp("export") / "run"
    small = ("--data", "digits", "--network", "resann-1-4-every-2", "--epochs", "1", "--validation")
    command("train", *small, "--framework", INSTALLED[0], "--out", folder)
    return folder


@pytest.fixture
def own(finished, tmp_path):
    """A copy to export from."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The run's export to ONNX."""
    for module in NEEDED["onnx"]:
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("onnx") / "made"
    command("export", finished, "--output", folder)
    return folder


@pytest.mark.parametrize("to", exporting.TARGETS)
def test_a_run_is_written_in_each_format(to, own):
    for module in NEEDED[to]:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed here")
    run = read(own)
    found = json.loads(command("export", own, "--to", to, "--json"))
    folder = own / f"export-{to}"
    assert found["folder"] == str(folder)
    assert found["format"] == to
    assert 0 <= found["difference"] <= 1e-5
    written = layout.read(folder)
    assert written.format == to
    assert written.about.class_names == tuple("0123456789")
    assert [known.validation_error for known in written.about.exits] == list(run.test_error)
    assert {known.test_error for known in written.about.exits} == {None}
    costs = [(known.multiply_adds, known.parameters) for known in written.about.exits]
    assert costs == list(run.spec.costs())
    assert (folder / "statistics.npz").read_bytes() == (own / "statistics.npz").read_bytes()
    assert set(found["bytes"]) == {path.name for path in folder.iterdir()}


def test_its_answers_are_those_of_the_trained_weights(finished, exported):
    from loss_balance.reference_models.onnx import AnytimeNet

    run, net = read(finished), AnytimeNet(exported)
    x = net.standardise(load("digits").x_test[:5])
    np.testing.assert_array_equal(x, run.preparation.standardise(load("digits").x_test[:5]))
    expected = Oracle(run.spec, run.weights()).logits(x)
    for found, wanted in zip(net(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5 * np.abs(wanted).max())
    assert net.errors == run.validation_error


def test_what_is_there_is_overwritten_if_asked_by_a_run_of_any_framework(own, exported):
    config = json.loads((own / "config.json").read_text())
    config["engine"]["framework"] = "jax" if INSTALLED[0] != "jax" else "tensorflow"
    (own / "config.json").write_text(json.dumps(config))
    folder = own / "export-onnx"
    shutil.copytree(exported, folder)
    (folder / "exit0.onnx").write_bytes(b"older")
    line = one_line(*call("export", own))
    assert f"{folder} holds an export already: discard it with --overwrite" in line
    assert (folder / "exit0.onnx").read_bytes() == b"older"
    said = command("export", own, "--to", "onnx", "--quiet", "--overwrite")
    for name in ("exit0.onnx", "exit1.onnx", "segment0.onnx", "exits.json"):
        assert name in said
        assert (folder / name).read_bytes() == (exported / name).read_bytes()
    assert re.search(r"at most \d\.\de-\d\d of the largest logit", said)
    assert f"Export: {folder}" in said


def test_predict_answers_from_the_export_as_from_the_run(finished, exported, tmp_path):
    np.save(tmp_path / "image.npy", load("digits").x_test[17])
    answers = [
        json.loads(command("predict", folder, tmp_path / "image.npy", "--json"))
        for folder in (finished, exported)
    ]
    for name in ("class", "exit", "exits", "late"):
        assert answers[0][name] == answers[1][name]
    assert answers[0]["probability"] == pytest.approx(answers[1]["probability"], abs=1e-5)
    late = json.loads(
        command("predict", exported, tmp_path / "image.npy", "--deadline", "0ms", "--json")
    )
    assert (late["exit"], late["late"]) == (0, True)


def test_what_an_export_cannot_answer_is_named(exported, tmp_path):
    line = one_line(*call("predict", exported, "test:17"))
    assert "IMAGE must be a file for an export" in line
    shutil.copytree(exported, tmp_path / "broken")
    (tmp_path / "broken" / "segment1.onnx").write_bytes(b"no network")
    line = one_line(*call("predict", tmp_path / "broken", "image.png"))
    assert "segment1.onnx must be as an export left it, got" in line


def test_a_folder_of_something_else_is_left_alone(own):
    line = one_line(*call("export", own, "--to", "torch", "--output", own, "--overwrite"))
    torch_is_here = find_spec("torch") is not None
    assert ("a new or empty folder or one of an export" in line) == torch_is_here
    assert (own / "result.json").exists()


@pytest.mark.parametrize(
    ("to", "missing", "install"),
    [
        ("onnx", "torch", "pip install 'loss-balance[torch,export]'"),
        ("torch", "torch", "pip install 'loss-balance[torch]'"),
        ("savedmodel", "tensorflow", "pip install 'loss-balance[tensorflow]'"),
        ("jax", "jax", "pip install 'loss-balance[jax,export]'"),
    ],
)
def test_a_missing_framework_is_named(own, to, missing, install, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    line = one_line(*call("export", own, "--to", to))
    assert f"--to {to} needs {missing}, whatever the run was trained in: {install}" in line
    assert not (own / f"export-{to}").exists()


def test_bad_input_is_one_line(own, tmp_path):
    line = one_line(*call("export", own, "--to", "tflite"))
    assert "--to must be one of onnx, torch, savedmodel, jax, got 'tflite'" in line
    assert "RUN must be the folder of a finished run" in one_line(*call("export", tmp_path))
