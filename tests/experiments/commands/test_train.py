"""`loss-balance train`: the run it leaves, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")

from support.experiments.command_line import call

QUICK = ["--data", "digits", "--network", "resann-1-4", "--epochs", "2", "--batch-size", "256"]
FILES = {
    ".command",
    "environment.json",
    ".lock",
    "checkpoint.npz",
    "config.json",
    "metrics.jsonl",
    "previous.npz",
    "result.json",
    "statistics.npz",
    "weights.npz",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    return folder, call("train", *QUICK, "--out", folder)


def stamps(folder):
    return {file: file.stat().st_mtime_ns for file in folder.iterdir() if file.suffix == ".npz"}


def test_it_leaves_one_finished_run(trained):
    folder, (status, _, complaint) = trained
    assert status == 0, complaint
    assert {file.name for file in folder.iterdir()} == FILES
    assert {file.name for file in folder.parent.iterdir()} == {"run"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["network"], config["seed"], config["recipe"]["epochs"]) == ("resann-1-4", 0, 2)
    assert config["scheme"]["class"] == "AdaLoss"


def test_it_prints_what_the_run_measured(trained):
    folder, (_, printed, _) = trained
    result = json.loads((folder / "result.json").read_text())
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss_weight"]
    rows = [re.findall(r"[\d.,]+", line) for line in printed.splitlines() if "│" in line]
    shown = {row[0]: row[2:] for row in rows if row}
    for k in range(3):
        assert shown[str(k + 1)] == [
            f"{result['train_loss'][k]:.4f}",
            f"{result['test_loss'][k]:.4f}",
            f"{100 * result['test_error'][k]:.2f}",
            f"{last[k]:.4f}",
        ]


def test_a_comparison_trains_the_same_run(trained, tmp_path):
    arguments = [*QUICK, "--schemes", "adaloss", "--out", tmp_path / "out"]
    status, _, complaint = call("compare", *arguments)
    assert status == 0, complaint
    other = tmp_path / "out" / "runs" / "adaloss-seed0" / "result.json"
    assert other.read_text() == (trained[0] / "result.json").read_text()


def test_a_finished_run_stays_unless_told_otherwise(trained):
    folder, _ = trained
    before = stamps(folder)
    status, _, complaint = call("train", *QUICK, "--out", folder)
    assert (status, "continue it with --resume" in complaint) == (2, True)
    status, printed, _ = call("train", *QUICK, "--out", folder, "--resume")
    assert (status, "test error" in printed) == (0, True)
    status, _, complaint = call("train", *QUICK, "--seed", 1, "--out", folder, "--resume")
    assert (status, "seed 0 is now 1" in complaint) == (2, True)
    arguments = ["--learning-rate", "0.3", "--out", folder, "--resume"]
    status, _, complaint = call("train", *QUICK, *arguments)
    assert (status, "recipe learning_rate 0.1 is now 0.3" in complaint) == (2, True)
    assert stamps(folder) == before


def test_overwrite_discards_the_run_alone(tmp_path):
    folder = tmp_path / "run"
    assert call("train", *QUICK, "--out", folder)[0] == 0
    (folder / "notes.txt").write_text("mine")
    first = (folder / "result.json").read_text()
    status, _, complaint = call("train", *QUICK, "--seed", 1, "--out", folder, "--overwrite")
    assert status == 0, complaint
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "result.json").read_text() != first


def test_opt_trains_for_the_last_exit_alone(tmp_path):
    status, _, complaint = call("train", *QUICK, "--scheme", "opt", "--out", tmp_path / "run")
    assert status == 0, complaint
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["test_error"]) == 1


def test_another_commands_folder_is_not_overwritten(tmp_path):
    comparison = {"backend": "torch", "schemes": ["const"]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(json.dumps(comparison))
    status, _, complaint = call("train", *QUICK, "--out", tmp_path / "out", "--overwrite")
    assert (status, "is another's" in complaint) == (2, True)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == comparison


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "magic"], "unknown scheme magic"),
        (["--seed", "-1"], "seed must be"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["--network", "vgg"], "vgg"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, arguments, message):
    status, _, complaint = call("train", *QUICK, *arguments, "--out", tmp_path / "out")
    assert (status, message in complaint) == (2, True), complaint
    assert not (tmp_path / "out").exists()
