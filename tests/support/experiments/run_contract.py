"""What a run promises in every framework: repeatable, resumable after any death, honest.

Subclass `RunContract` and name the framework. As a program it trains one run in each folder:

    python tests/run_contract.py FRAMEWORK EPOCHS FOLDER ...
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.experiments.learners import DATA, SPEC, assert_same_arrays, cross_entropies, make
from support.experiments.standardising import standardise
from support.networks.numpy_network import Oracle as Network

from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.loop import train
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.reference_models.description import weights

FILES = {"config.json", "environment.json", "metrics.jsonl", "checkpoint.npz", "previous.npz"}
FILES |= {"weights.npz", "statistics.npz", "result.json"}
WRITES = 12  # config, empty metrics, environment, two in each of three epochs, three at the end


def go_on(epoch, step, loss):
    return True


def assert_same_files(left, right):
    for name in ("result.json", "config.json"):
        assert (left / name).read_text() == (right / name).read_text()
    assert timeless(left) == timeless(right)
    for name in ("weights.npz", "checkpoint.npz"):
        assert_same_arrays(weights.load(left / name), weights.load(right / name))


def timeless(folder):
    """The epochs without what differs from one time to the next."""
    taken = ("seconds", "images_per_second")
    return [{k: v for k, v in e.items() if k not in taken} for e in read_metrics(folder)]


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def one_array_less(file):
    arrays = weights.load(file)
    del arrays[next(name for name in arrays if name != "epochs")]
    np.savez(file, **arrays)


def one_bit_else(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def something_else(file):
    file.write_bytes(b"PK\x03\x04 damaged")


class Diverging:
    """The learner, whose learning rate is beyond all measure from the second epoch on."""

    def __init__(self, learner):
        self.learner, self.epochs = learner, 0

    def train_epoch(self, batches, rate, on_step):
        self.epochs += 1
        return self.learner.train_epoch(batches, rate if self.epochs == 1 else 1e30, on_step)

    def __getattr__(self, name):
        return getattr(self.learner, name)


class RunContract:
    framework: str

    @classmethod
    def run(cls, folder, progress=go_on, **options):
        chosen = make(cls.framework, **options)
        return train(chosen, learner(chosen, DATA), DATA, folder, progress)

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("finished")
        return folder, cls.run(folder)

    def test_the_loss_falls_and_every_epoch_is_recorded(self, finished):
        folder, result = finished
        assert {path.name for path in folder.iterdir()} == FILES
        epochs = read_metrics(folder)
        assert [e["epoch"] for e in epochs] == [1, 2, 3]
        assert {key for e in epochs for key in e} == {
            *("epoch", "train_loss", "loss_weight", "seconds", "images_per_second"),
        }
        assert epochs[-1]["train_loss"][-1] < epochs[0]["train_loss"][-1]
        assert all(max(e["loss_weight"]) == 1.0 for e in epochs)
        assert set(result) == {"train_loss", "test_loss", "test_error"}
        assert {len(values) for values in result.values()} == {len(SPEC.exits)}
        assert all(0 < error < 1 for error in result["test_error"])

    def test_the_same_run_gives_the_same_numbers(self, finished, tmp_path):
        self.run(tmp_path)
        assert_same_files(finished[0], tmp_path)

    def test_another_seed_gives_other_numbers(self, finished, tmp_path):
        assert self.run(tmp_path, seed=1) != finished[1]

    @pytest.mark.parametrize("stop_at", [(0, 0), (1, 10), (2, 0)])
    def test_a_stopped_run_resumes_to_the_same_numbers(self, finished, tmp_path, stop_at):
        with pytest.raises(Interruption):
            self.run(tmp_path, lambda epoch, step, loss: (epoch, step) < stop_at)
        self.run(tmp_path)
        assert_same_files(finished[0], tmp_path)

    def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(self, tmp_path):
        """In processes of their own, as runs are, for the number of threads may change bits."""
        cut, whole = tmp_path / "cut", tmp_path / "whole"
        command = [sys.executable, __file__, self.framework, "20"]
        of_tests = "JAX_NUM_CPU_DEVICES"
        environment = {name: value for name, value in os.environ.items() if name != of_tests}
        process = subprocess.Popen([*command, cut], stderr=subprocess.PIPE, env=environment)
        deadline = time.monotonic() + 300
        while not (cut / "previous.npz").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert not (cut / "result.json").exists()
        subprocess.run([*command, cut, whole], check=True, env=environment)
        (cut / "checkpoint.npz.part").unlink(missing_ok=True)
        assert_same_files(cut, whole)

    def test_a_run_killed_between_metrics_and_checkpoint_resumes(self, finished, tmp_path):
        with pytest.raises(Interruption):
            self.run(tmp_path, lambda epoch, step, loss: epoch < 1)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 2, "train_lo')  # the line was being written
        (tmp_path / "checkpoint.npz.part").write_bytes(b"half a checkpoint")
        self.run(tmp_path)
        assert_same_files(finished[0], tmp_path)

    def test_a_finished_run_is_not_trained_again(self, finished, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(finished[0], folder)

        def refuse(epoch, step, loss):
            raise AssertionError("trained")

        assert self.run(folder, refuse) == finished[1]

    def test_another_runs_folder_is_refused(self, finished):
        with pytest.raises(UserError, match="holds another run"):
            self.run(finished[0], epochs=4)

    @pytest.mark.parametrize("damage", [cut_short, one_array_less, one_bit_else, something_else])
    def test_beside_a_damaged_checkpoint_the_previous_one_goes_on(
        self, finished, tmp_path, capsys, damage
    ):
        with pytest.raises(Interruption):
            self.run(tmp_path, lambda epoch, step, loss: epoch < 2)
        kept = (tmp_path / "previous.npz").read_bytes()
        damage(tmp_path / "checkpoint.npz")
        assert (tmp_path / "previous.npz").read_bytes() == kept
        capsys.readouterr()
        self.run(tmp_path)
        said = capsys.readouterr().err
        assert "checkpoint.npz cannot be read" in said
        assert "going on from epoch 1" in said
        assert len(said.strip().splitlines()) == 1
        assert_same_files(finished[0], tmp_path)

    def test_where_no_checkpoint_can_be_read_each_is_named(self, tmp_path):
        with pytest.raises(Interruption):
            self.run(tmp_path, lambda epoch, step, loss: epoch < 2)
        for name in ("checkpoint.npz", "previous.npz"):
            something_else(tmp_path / name)
        with pytest.raises(UserError) as caught:
            self.run(tmp_path)
        for words in (
            "checkpoint.npz cannot be read",
            "previous.npz cannot be read",
            "--overwrite",
        ):
            assert words in str(caught.value)

    def test_a_diverging_run_says_so(self, tmp_path):
        with pytest.raises(UserError, match=r"not finite in epoch .* a smaller --learning-rate"):
            self.run(tmp_path, learning_rate=1e30)

    def test_the_checkpoint_before_a_divergence_stays(self, finished, tmp_path):
        chosen = make(self.framework)
        with pytest.raises(UserError, match=r"epoch 2; .* The checkpoint after epoch 1 stays"):
            train(chosen, Diverging(learner(chosen, DATA)), DATA, tmp_path, go_on)
        self.run(tmp_path)
        assert_same_files(finished[0], tmp_path)

    @pytest.mark.parametrize("full_at", range(WRITES))
    def test_on_a_full_disk_what_was_there_stays(self, finished, tmp_path, monkeypatch, full_at):
        sync, syncs = os.fsync, []

        def fail_once(descriptor):
            syncs.append(descriptor)
            if len(syncs) == full_at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", fail_once)
        with pytest.raises(UserError, match=r"the disk is full, .* could not be written: free"):
            self.run(tmp_path)
        assert not list(tmp_path.glob("*.part"))
        for file in tmp_path.glob("*.npz"):
            weights.load(file)
        self.run(tmp_path)
        assert_same_files(finished[0], tmp_path)

    def test_the_weights_file_is_the_finished_network(self, finished):
        folder, result = finished
        net = Network(SPEC, weights.load(folder / "weights.npz"))
        logits = np.stack(net.logits(standardise(DATA, DATA.x_test)))
        wrong = (logits.argmax(axis=2) != DATA.y_test).mean(axis=1)
        tie = 1.5 / len(DATA.y_test)
        assert result["test_error"] == pytest.approx(wrong.tolist(), abs=tie)
        loss = cross_entropies(logits, DATA.y_test).mean(axis=1)
        assert result["test_loss"] == pytest.approx(loss.tolist(), rel=1e-5)

    def test_the_checkpoint_holds_no_pickle(self, finished):
        with np.load(finished[0] / "checkpoint.npz", allow_pickle=False) as archive:
            kinds = {archive[name].dtype.kind for name in archive}
        assert kinds <= {"f", "i", "u"}  # "u": whose state the balancer's is, as JSON in bytes

    def test_the_config_can_be_read_by_people(self, finished):
        config = json.loads((finished[0] / "config.json").read_text())
        assert config["network"] == "resann-1-4"
        assert config["scheme"]["class"] == "AdaLoss"
        assert config["scheme"]["num_losses"] == 3
        assert config["recipe"]["epochs"] == 3
        assert config["engine"]["framework"] == self.framework


if __name__ == "__main__":
    framework, epochs, *folders = sys.argv[1:]
    for folder in folders:
        run = make(framework, epochs=int(epochs))
        train(run, learner(run, DATA), DATA, Path(folder), go_on)
