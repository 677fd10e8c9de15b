"""The main job from the outside: the command, its files, its errors, Ctrl-C and --resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html import unescape

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")

COMMAND = [sys.executable, "-c", "from loss_balance.experiments.cli import main; main()"]
QUICK = ["--data", "digits", "--network", "resann-1-4", "--epochs", "2", "--batch-size", "256"]
FILES = {".command", "config.json", "summary.json", "curves.png", "report.html", "runs"}


def command(*arguments, **options):
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    arguments = ["compare", *QUICK, "--seeds", "2", "--schemes", "const,half-end,adaloss,opt"]
    return folder, command(*arguments, "--out", folder)


def test_it_shows_the_tables_and_writes_the_files(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == FILES
    for words in ("Training loss", "Test error", "1/4 of cost", "exit 3", "adaloss", "half-end"):
        assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_table_is_what_the_runs_measured(finished):
    folder, done = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["exit_at_fraction"] == [1, 1, 2, 3]
    for name in ("const", "half-end", "adaloss"):
        runs = [
            json.loads((folder / "runs" / f"{name}-seed{seed}" / "result.json").read_text())
            for seed in (0, 1)
        ]
        for metric in ("train_loss", "test_error"):
            mean = np.mean([run[metric] for run in runs], axis=0)
            assert summary["schemes"][name][metric] == pytest.approx(mean.tolist())
        last = np.mean([run["test_error"][-1] for run in runs])
        spread = np.std([run["test_error"][-1] for run in runs], ddof=1)
        opt = np.mean(
            [
                json.loads((folder / "runs" / f"opt-exit3-seed{s}" / "result.json").read_text())[
                    "test_error"
                ][0]
                for s in (0, 1)
            ]
        )
        lines = done.stdout.split("Test error")[1].splitlines()
        row = next(k for k, line in enumerate(lines) if name in line)
        assert f"{100 * last:.1f} ±{100 * spread:.1f}" in lines[row]
        assert f"({100 * (last / opt - 1):+.0f} %)" in lines[row + 1]


def test_the_findings_follow_from_the_summary(finished):
    summary = json.loads((finished[0] / "summary.json").read_text())
    line = next(
        x for x in summary["findings"] if x.startswith("Training loss, AdaLoss against con")
    )
    loss = {name: summary["schemes"][name]["train_loss"] for name in ("const", "adaloss")}
    at = [index - 1 for index in summary["exit_at_fraction"]]
    changes = [round(100 * (loss["adaloss"][k] / loss["const"][k] - 1)) for k in at]
    assert [int(x) for x in re.findall(r"([+-]?\d+) % at", line)] == changes
    one, other = (np.array(summary["schemes"][n]["train_loss_of_seeds"])[:, at] for n in loss)
    critical = {2: 12.706, 3: 4.303}[len(one)]  # of Student's t, 5 % on both sides, from a table
    t = (other - one).mean(axis=0) / ((other - one).std(axis=0, ddof=1) / np.sqrt(len(one)))
    clear = np.abs(t) > critical
    pairs = list(zip(changes, clear, strict=True))
    assert ("gains at" in line) == any(change < 0 for change, is_clear in pairs if is_clear)
    assert ("pays at" in line) == any(change > 0 for change, is_clear in pairs if is_clear)


def test_the_report_stands_alone(finished):
    page = unescape((finished[0] / "report.html").read_text())
    assert page.count("<svg ") == 4
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    summary = json.loads((finished[0] / "summary.json").read_text())
    assert all(line in page for line in summary["findings"])


def test_a_finished_comparison_resumes_to_the_same_summary(finished):
    folder, _ = finished
    before = (folder / "summary.json").read_bytes(), (folder / "curves.png").read_bytes()
    arguments = ["compare", *QUICK, "--seeds", "2", "--schemes", "const,half-end,adaloss,opt"]
    done = command(*arguments, "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert before == ((folder / "summary.json").read_bytes(), (folder / "curves.png").read_bytes())


def summary_of(folder):
    """Without the path of the data: the same comparison in another folder."""
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_comparison_resumes_to_the_same_numbers(tmp_path, kill):
    arguments = ["compare", *QUICK, "--epochs", "12", "--schemes", "const,adaloss"]
    whole = command(*arguments, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "cut"
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal reaches the whole group, workers too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored behind a "&"
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("runs/*/checkpoint.npz")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, kill)
    printed, _ = process.communicate(timeout=60)
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in printed
    assert "Traceback" not in printed
    assert not (out / "summary.json").exists()
    resumed = command(*arguments, "--out", out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert summary_of(out) == summary_of(tmp_path / "whole")
    for run in ("const-seed0", "adaloss-seed0"):
        left, right = (np.load(f / "runs" / run / "weights.npz") for f in (out, tmp_path / "whole"))
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "mnist"], "unknown data set 'mnist': choose from digit-pairs, digits, cifar10"),
        (["--data", "npz"], "data set npz needs its file: --data npz --path FILE.npz"),
        (["--data", "npz", "--path", "none.npz"], "none.npz: give the npz of the data set"),
        (["--schemes", "const,ada"], "unknown scheme ada: choose from const, linear, half-end"),
        (["--schemes", ","], "unknown scheme (none given)"),
        (["--network", "resnet-18"], "a network's name must be like resann-<n>-<c>"),
        (["--network", "resann-1-3"], "got 3"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1, got 0"),
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--seeds", "0"], "--seeds must be how many, at least 1"),
        (["--jobs", "0"], "jobs must be a whole number of at least 1, got 0"),
        (["--learning-rate", "-1"], "learning_rate must be a number in (0, inf), got -1.0"),
        (["--gamma", "1.5"], "gamma must be a number in [0, 1], got 1.5"),
        (["--decay", "1"], "decay must be a number in [0, 1), got 1.0"),
        (["--final-weight", "0"], "final_weight must be a number in (0, inf), got 0.0"),
        (["--guidance", "0"], "guidance must be a number in (0, 1], got 0.0"),
        (["--framework", "caffe"], "unknown framework 'caffe': choose from torch"),
        (["--backend", "caffe"], "unknown framework 'caffe': choose from torch"),
        (["--device", "tpu"], "unknown device 'tpu': choose from cpu, cuda"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--learnin-rate", "1"], "No such option: --learnin-rate"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path):
    done = command("compare", "--data", "digits", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_an_npz_that_the_network_cannot_take_is_named(tmp_path):
    np.savez(
        tmp_path / "odd.npz",
        x_train=np.zeros((4, 9, 9)),
        y_train=np.arange(4),
        x_test=np.zeros((2, 9, 9)),
        y_test=np.arange(2),
    )
    done = command("compare", "--data", "npz", "--path", tmp_path / "odd.npz")
    assert done.returncode == 2
    assert "it halves the sides, which must be even, got 9x9" in done.stderr


def test_a_folder_in_use_is_not_overwritten_unasked(finished, tmp_path):
    folder, _ = finished
    again = command("compare", *QUICK, "--out", folder)
    assert again.returncode == 2
    assert "continue it with --resume" in again.stderr
    other = command("compare", *QUICK, "--out", folder, "--resume", "--gamma", "0.5")
    assert other.returncode == 2
    assert "gamma 0.05 is now 0.5" in other.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    foreign = command("compare", *QUICK, "--out", tmp_path / "mine", "--overwrite")
    assert foreign.returncode == 2
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_run_that_fails_ends_all_with_one_line(tmp_path):
    done = command("compare", *QUICK, "--learning-rate", "1e30", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "try a smaller --learning-rate" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_an_npz_of_ones_own_is_trained(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    x = rng.normal(size=(90, 8, 8, 2)) + y[:, None, None, None]
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    arguments = ["--data", "npz", "--path", tmp_path / "own.npz", "--network", "resann-1-4"]
    arguments += ["--epochs", 3, "--batch-size", 16, "--schemes", "adaloss", "--out", "here"]
    done = command("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert summary["schemes"]["adaloss"]["test_error"][-1] < 0.5


def test_help_reads_well():
    done = command("compare", "--help")
    assert done.returncode == 0
    for words in ("Train one network with several weight schemes", "--resume", "digit-pairs 25"):
        assert words in done.stdout
    assert "compare" in command("--help").stdout
    assert re.fullmatch(r"loss-balance \d\S*\n", command("--version").stdout)
