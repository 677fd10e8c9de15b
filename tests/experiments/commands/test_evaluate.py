"""`loss-balance evaluate`: a run trained in PyTorch, evaluated in every framework."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")

from support.experiments.command_line import call

COMMAND = [sys.executable, "-c", "from loss_balance.experiments.cli import main; main()"]
FRAMEWORKS = ("torch", "tensorflow", "jax")


def command(*arguments):
    """In a process of its own: two frameworks in one can abort the interpreter."""
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    arguments = [*COMMAND, *map(str, arguments)]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained on images of a file that has since moved."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    x = (rng.normal(size=(300, 8, 8, 2)) + 0.5 * y[:, None, None, None]).astype(np.float32)
    np.savez(folder / "own.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    arguments = ["--data", "npz", "--path", folder / "own.npz", "--network", "resann-1-4"]
    arguments += ["--epochs", 4, "--batch-size", 16, "--out", folder / "run"]
    status, _, complaint = call("train", *arguments)
    assert status == 0, complaint
    (folder / "elsewhere").mkdir()
    (folder / "own.npz").rename(folder / "elsewhere" / "own.npz")
    return folder / "run", folder / "elsewhere" / "own.npz"


def copied(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework_finds_what_the_run_recorded(run, framework):
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed here")
    folder, data = run
    done = command("evaluate", folder, "--framework", framework, "--path", data)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text())
    rows = [re.findall(r"[\d.]+", line) for line in done.stdout.splitlines() if "yes" in line]
    assert len(rows) == 3
    for k, (number, loss, recorded, error, recorded_error) in enumerate(rows):
        assert number == str(k + 1)
        assert recorded == f"{result['test_loss'][k]:.6f}"
        assert recorded_error == f"{100 * result['test_error'][k]:.2f}"
        assert float(loss) == pytest.approx(result["test_loss"][k], rel=1e-4)
        assert float(error) == pytest.approx(100 * result["test_error"][k], abs=1)
    assert f"{framework} (float32) and the run's torch (float32) agree" in done.stdout


def test_nothing_in_the_run_changes(run):
    folder, data = run
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert command("evaluate", folder, "--path", data).returncode == 0
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_other_weights_disagree(run, tmp_path):
    folder, data = copied(run[0], tmp_path), run[1]
    with np.load(folder / "weights.npz") as file:
        arrays = {name: array * np.float32(1.2) for name, array in file.items()}
    np.savez(folder / "weights.npz", **arrays)
    done = command("evaluate", folder, "--path", data)
    assert done.returncode == 1
    assert "disagree" in done.stdout


def test_one_other_exit_is_enough(run, tmp_path):
    folder, data = copied(run[0], tmp_path), run[1]
    result = json.loads((folder / "result.json").read_text())
    result["test_loss"][1] += 0.01 * max(1, result["test_loss"][1])
    (folder / "result.json").write_text(json.dumps(result))
    done = command("evaluate", folder, "--path", data)
    assert done.returncode == 1
    verdicts = re.findall(r"│ (yes|no) +│", done.stdout)
    assert verdicts == ["yes", "no", "yes"]


def test_what_cannot_be_evaluated_is_one_line(run, tmp_path):
    folder, data = run
    weights = copied(folder, tmp_path)
    (weights / "weights.npz").write_bytes(b"no npz")
    with np.load(data) as file:
        arrays = dict(file)
    np.savez(tmp_path / "own.npz", **arrays | {"x_test": arrays["x_test"] + 1})
    cases = [
        ((folder,), "own.npz"),  # moved
        ((folder, "--path", tmp_path / "own.npz"), "was trained on other data than npz now is"),
        ((weights, "--path", data), "weights.npz must be as training left it"),
        ((tmp_path,), "RUN must be the folder of a finished run"),
        ((folder, "--path", data, "--framework", "theano"), "unknown framework 'theano'"),
        ((folder, "--path", data, "--precision", "int8"), "unknown precision 'int8'"),
    ]
    for arguments, message in cases:
        status, _, complaint = call("evaluate", *arguments)
        assert (status, message in complaint) == (2, True), complaint
        assert len(complaint.splitlines()) == 1
