"""What people hit with the command and its folders: each is one right line, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
from support.experiments.command_line import call, one_line, train

SMALL = ("--data", "digits", "--network", "resann-1-4", "--epochs", "1")
NAMES = ["z[", "[red]x:cat:", "$x$ {y}", "%s", os.fsdecode(b"\xff\xfe")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one epoch, whose folder no test changes."""
    folder = tmp_path_factory.mktemp("field") / "run"
    status, *_ = train(folder)
    assert status == 0
    return folder


@pytest.fixture
def own(finished, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(finished, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(finished, folder)
    status, said, _ = call("runs", tmp_path)
    assert status == 0
    assert str(folder) in said
    for command in (("report", tmp_path, "--out", "page.html"), ("predict", folder, "test:0")):
        status, *_ = call(*command)
        assert status == 0
    page = (os.fsencode(name).decode("utf-8", "replace")).replace("&", "&amp;")
    assert page in Path("page.html").read_text(encoding="utf-8")
    assert str(folder) in one_line(*train(folder))


def test_a_folder_in_training_is_left_alone_whatever_is_asked(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "from loss_balance.experiments.cli import main\nif __name__ == '__main__':\n    main()\n"
    )
    command = [sys.executable, str(script), "train", *map(str, SMALL[:-1]), "500"]
    folder = tmp_path / "two"
    with subprocess.Popen(
        [*command, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as first:
        try:
            while not (folder / "metrics.jsonl").exists():
                assert first.poll() is None, first.stderr.read()
                time.sleep(0.1)
            before = (folder / "config.json").read_bytes()
            for flag in ("--overwrite", "--resume"):
                assert "another command is training" in one_line(*train(folder, flag))
                assert "another command is training" in one_line(
                    *call("compare", *SMALL, "--out", folder, flag)
                )
            assert (folder / "config.json").read_bytes() == before
            assert (folder / "metrics.jsonl").exists()
        finally:
            os.killpg(first.pid, signal.SIGTERM)  # as SLURM does: to all processes of the job
            said, _ = first.communicate()
    assert first.returncode == 130
    assert b"--resume" in said


def lines_of(said):
    return [line for line in said.splitlines() if "epoch" in line]


def test_without_a_terminal_there_is_a_line_per_epoch(tmp_path):
    status, said, _ = train(tmp_path / "run", "--epochs", "2", "--evaluate-every", "2")
    assert status == 0
    first, second = lines_of(said)[:2]
    assert first.startswith("run epoch 1/2: loss ")
    assert "images/s" in first
    assert "left" in first
    assert "error" not in first
    assert "error" in second
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    one, two = map(json.loads, metrics)
    assert set(two) - set(one) == {"test_loss", "test_error"}
    assert len(two["test_error"]) == 3
    assert one["seconds"] > 0
    assert (tmp_path / "run" / "best.npz").read_bytes() == (
        tmp_path / "run" / "checkpoint.npz"
    ).read_bytes()
    with np.load(tmp_path / "run" / "best.npz") as best:
        assert int(best["epochs"]) == 2
    (environment,) = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert {"numpy", "torch", "loss-balance"} <= set(environment["packages"])


def test_quiet_and_json_leave_what_was_found_alone(tmp_path):
    status, said, complaint = train(tmp_path / "run", "--json")
    assert status == 0
    assert len(json.loads(said)["test_error"]) == 3
    assert lines_of(complaint)
    status, said, complaint = train(tmp_path / "run", "--overwrite", "--quiet")
    assert (status, complaint) == (0, "")
    assert not [line for line in lines_of(said) if "images/s" in line]


def test_a_run_that_was_moved_or_renamed_goes_on(own, tmp_path):
    (own / "result.json").unlink()
    moved = tmp_path / "elsewhere" / "other"
    moved.parent.mkdir()
    own.rename(moved)
    status, *_ = train(moved, "--resume")
    assert status == 0


def test_data_that_were_moved_are_the_same_data(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 255, (40, 8, 8, 1), np.uint8),
        "y_train": np.arange(40) % 3,
    }
    arrays |= {"x_test": arrays["x_train"][:6], "y_test": arrays["y_train"][:6]}
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "set.npz", **arrays)
    monkeypatch.chdir(tmp_path / "a")
    command = ("train", "--data", "npz", "--network", "resann-1-4", "--batch-size", "8")
    status, *_ = call(*command, "--path", "./../a/set.npz", "--epochs", "1", "--out", "../run")
    assert status == 0
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    found = call(*command, "--path", "b/set.npz", "--epochs", "1", "--out", "run", "--resume")
    assert found[0] == 0
    assert call("evaluate", "run", "--path", "b/set.npz")[0] == 0


DAMAGE = {
    "config.json": [b"", b"{", b"[]", b'{"spec": 1}', b"[" * 100_000],
    "result.json": [b"", b'{"train_loss": [1]', b"[]", b'{"train_loss": [1, 2, 3]}'],
    "metrics.jsonl": [b"{", b"[]\n", b'{"epoch": 2, "train_loss": [1]}\n'],
    "statistics.npz": [b"", b"PK\x03\x04"],
    "weights.npz": [b"", b"PK\x03\x04"],
}
CASES = [(name, content) for name, contents in DAMAGE.items() for content in contents]


@pytest.mark.parametrize(("name", "content"), CASES)
def test_a_damaged_file_of_a_run_is_named(own, name, content):
    (own / name).write_bytes(content)
    commands = [("report", own, "--out", "p.html"), ("predict", own, "test:0"), ("evaluate", own)]
    commands += [("runs", own, "--json")]
    complaints = [one_line(*found) for command in commands if (found := call(*command))[0]]
    assert complaints
    assert all(name in line for line in complaints)


@pytest.mark.parametrize("name", [*DAMAGE, "checkpoint.npz"])
def test_a_folder_in_the_place_of_a_file_is_named(own, name):
    (own / name).unlink()
    (own / name).mkdir()
    if name == "checkpoint.npz":
        (own / "result.json").unlink()
        (own / "previous.npz").unlink(missing_ok=True)
        assert name in one_line(*train(own, "--resume"))
        return
    assert name in one_line(*call("evaluate", own))


def test_a_damaged_note_of_the_environment_is_named(own):
    (own / "result.json").unlink()
    (own / "environment.json").write_text("[{")
    assert "environment.json must be as training left it" in one_line(*train(own, "--resume"))


@pytest.mark.parametrize("epochs", [np.array(-1), np.array(7), np.array([1, 2]), np.array(1.5)])
def test_a_checkpoint_of_impossible_epochs_is_named(own, epochs):
    (own / "result.json").unlink()
    with np.load(own / "checkpoint.npz") as checkpoint:
        arrays = dict(checkpoint)
    np.savez(own / "checkpoint.npz", **{**arrays, "epochs": epochs})
    assert "checkpoint.npz cannot be read (it counts" in one_line(*train(own, "--resume"))


def test_weights_and_statistics_of_another_network_are_refused(own):
    for name, expected in (
        ("weights.npz", "do not fit"),
        ("statistics.npz", "for images (8, 8, 1)"),
    ):
        kept = (own / name).read_bytes()
        with np.load(own / name) as arrays:
            wrong = {k: np.concatenate([v, v]) if v.ndim else v for k, v in arrays.items()}
        np.savez(own / name, **wrong)
        assert expected in one_line(*call("predict", own, "test:0"))
        (own / name).write_bytes(kept)


@pytest.mark.parametrize(
    "out", ["/proc/x", "a" * 300, "/dev/null/x"], ids=["proc", "long", "device"]
)
def test_what_the_system_refuses_is_one_line(out):
    one_line(*train(out))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("--learning-rate", "0"), "learning_rate must be"),
        (("--scheme", "nope"), "unknown scheme nope"),
        (("--network", "resann-9999-4"), "n must be at most 1000"),
        (("--network", "msdnet-original-1000-base-4-step-8"), "must fit into this machine's"),
        (("--gamma", "7"), "gamma must be"),
        (("--evaluate-every", "-1"), "evaluate_every must be"),
        (("--set", "decay"), "--set must be like"),
        (("--log", "paper"), "--log must be of"),
        (("--scheme", "no.such:Thing"), "no.such:Thing must be an object"),
    ],
)
def test_options_are_checked_before_any_data_are_looked_for(tmp_path, arguments, rule):
    """There is no network here, nor the files: whoever asks for those first says something else."""
    found = call(
        "train", "--data", "cifar10", "--path", tmp_path / "none", "--download", *arguments
    )
    assert rule in one_line(*found)


def test_a_broken_rule_among_the_fields_says_which_there_are(tmp_path):
    line = one_line(*train(tmp_path / "run", "--set", "warmth=3"))
    assert "decay" in line
    assert "weight_decay" in line
    assert "warmth" in line


def test_a_bug_is_told_from_what_the_user_can_mend(monkeypatch, finished):
    from loss_balance.experiments.commands import predict

    def broken(*_):
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr(predict, "answer_image", broken)
    status, _, complaint = call("predict", finished, "test:0")
    assert status == 70
    assert "please report it: ZeroDivisionError: of our own making" in complaint.splitlines()[-1]
    for error, expected in ((MemoryError("9 TB"), 2), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(
            predict, "answer_image", lambda *_, error=error: (_ for _ in ()).throw(error)
        )
        assert call("predict", finished, "test:0")[0] == expected


def test_help_needs_no_framework_no_numpy_and_no_pictures():
    code = (
        "import sys\nfrom loss_balance.experiments import cli\n"
        "sys.argv = ['loss-balance', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        "    print([m for m in ('numpy', 'matplotlib', 'torch', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_summaries_of_the_help_are_the_commands_own():
    from importlib import import_module

    from loss_balance.experiments import cli

    for name, summary in cli.COMMANDS.items():
        module = import_module(f"loss_balance.experiments.commands.{name}")
        said = module.app.info.help if hasattr(module, "app") else getattr(module, name).__doc__
        assert said.strip().splitlines()[0] == summary


@pytest.mark.parametrize(
    "module", ["loss_balance", "loss_balance.experiments", "loss_balance.experiments.cli"]
)
def test_the_command_is_a_module_too(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "train", "--epochs", "0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == ("loss-balance: epochs must be a whole number of at least 1, got 0\n")
