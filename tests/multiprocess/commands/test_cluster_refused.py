"""`--cluster`: what is refused, in one line, before anything is trained."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("distributed")

from filelock import FileLock
from support.experiments.command_line import call, one_line, train

import loss_balance
from loss_balance.experiments.runs.cluster import connection
from loss_balance.experiments.runs.cluster.folder import Needs, problem


@pytest.mark.parametrize("command", ["compare", "train", "eann", "paper"])
def test_a_place_that_is_none_is_refused_by_every_command(tmp_path, command):
    arguments = ["fig4"] if command == "paper" else []
    line = one_line(
        *call(command, *arguments, "--cluster", "nowhere.json", "--out", tmp_path / "out")
    )
    assert "tcp://HOST:PORT" in line
    assert "got 'nowhere.json'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"address": 7}'])
def test_a_file_that_no_scheduler_wrote_is_refused_and_nothing_written(tmp_path, text):
    file = tmp_path / "local.json"  # whose name is no place either
    file.write_text(text)
    line = one_line(*train(tmp_path / "out", "--cluster", file))
    assert "must be a scheduler that answers" in line
    assert {path.name for path in tmp_path.iterdir()} == {"local.json"}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "none://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_refused_and_nothing_written(
    tmp_path, monkeypatch, address
):
    monkeypatch.setattr(connection, "TIMEOUT", 1)
    line = one_line(*train(tmp_path / "out", "--cluster", address))
    assert f"must be a scheduler that answers, {address}" in line
    assert not list(tmp_path.iterdir())


def test_jobs_are_for_this_machine(tmp_path):
    given = ("--cluster", "local:2", "--jobs", "2", "--out", tmp_path / "out")
    assert "--jobs is for this machine" in one_line(*call("compare", *given))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def needs(tmp_path):
    """What a worker on this machine has, while a command lives."""
    found = Needs(tmp_path, "loss-balance-x", loss_balance.__version__, ("torch",), (tmp_path,))
    found.nonce.write_text(found.session)
    with FileLock(found.lock):
        yield found


NOTHING = pickle.dumps([])


def test_a_worker_that_shares_everything_is_asked_for_nothing(needs):
    assert problem(needs, NOTHING) is None


def test_a_worker_that_lacks_something_says_what(needs, tmp_path):
    for changed, said in (
        ({"version": "0.0"}, f"must have loss-balance 0.0, it has {loss_balance.__version__}"),
        ({"frameworks": ("no_framework",)}, "must have the framework: no_framework is not"),
        ({"data": (tmp_path / "data",)}, f"must see the data at {tmp_path / 'data'}"),
        ({"folder": tmp_path / "other"}, f"must see the command's --out at {tmp_path / 'other'}"),
        ({"session": "loss-balance-y"}, "it sees another folder or none"),
    ):
        assert said in problem(replace(needs, **changed), NOTHING)


def test_a_nonce_of_another_command_is_another_folder(needs):
    needs.nonce.write_text("loss-balance-y")
    assert "it sees another folder or none" in problem(needs, NOTHING)


def test_a_file_system_that_ignores_locks_is_refused(needs, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    assert f"must heed locks in {needs.folder}" in problem(needs, NOTHING)


def test_a_scheme_that_cannot_be_imported_there_is_named(needs, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Scheme: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    runs = pickle.dumps([mine.Scheme()])
    assert problem(needs, runs) is None
    monkeypatch.delitem(sys.modules, "mine")
    (tmp_path / "mine.py").unlink()
    assert "must be able to import what is trained: ModuleNotFoundError" in problem(needs, runs)
