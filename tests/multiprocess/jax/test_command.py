"""`--framework jax` by two processes of one command: the numbers of one, and nothing is lost."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("jax")
from support.distributed.processes import free_ports
from support.experiments.command_process import SMALL, begin, command, one_line, wait_for
from support.experiments.folders import apart

TRAIN = ("train", *SMALL, "--framework", "jax", "--learning-rate", "0.01", "--quiet")
ALONE = {"JAX_NUM_CPU_DEVICES": None}
SECONDS = 240  # a machine that others use compiles slowly


def begun(out, *more, patience=120):
    """Both processes."""
    told = {
        "WORLD_SIZE": "2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}",
        "LOSS_BALANCE_PATIENCE": str(patience),
    }
    return [begin(*TRAIN, *more, "--out", out, RANK=str(rank), **told) for rank in range(2)]


def ended(processes):
    """What each printed; none runs on."""

    def printed(process):
        said, _ = process.communicate(timeout=SECONDS)
        return said

    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            return list(pool.map(printed, processes))
    finally:
        for process in processes:
            process.kill()


def test_two_processes_end_in_the_numbers_of_one(tmp_path):
    few = ("--epochs", "1")
    done = command(*TRAIN, *few, "--out", tmp_path / "one", **ALONE)
    assert done.returncode == 0, done.stderr
    processes = begun(tmp_path / "two", *few)
    said = ended(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert [each.count("Run: ") for each in said] == [1, 0]  # one of them speaks for both
    assert 0 < apart(tmp_path / "one", tmp_path / "two") < 1e-4


def test_one_that_is_asked_to_stop_stops_both_and_one_alone_goes_on(tmp_path):
    out, long = tmp_path / "run", ("--epochs", "1000")
    processes = begun(out, *long)
    wait_for((out / "checkpoint.npz").exists, processes[0], SECONDS)
    os.kill(processes[1].pid, signal.SIGTERM)
    said = ended(processes)
    assert [process.returncode for process in processes] == [130, 130], said
    assert not any("Traceback" in each for each in said)
    before = len((out / "metrics.jsonl").read_text().splitlines())
    alone = begin(*TRAIN, *long, "--out", out, "--resume", **ALONE)

    def went_on():
        return len((out / "metrics.jsonl").read_text().splitlines()) > before

    wait_for(went_on, alone, SECONDS)
    os.kill(alone.pid, signal.SIGINT)
    (said,) = ended([alone])
    assert alone.returncode == 130, said


def test_one_that_is_killed_ends_the_other_and_what_was_reached_stays(tmp_path):
    out = tmp_path / "run"
    processes = begun(out, "--epochs", "1000", patience=30)
    wait_for((out / "checkpoint.npz").exists, processes[0], SECONDS)
    processes[1].kill()
    said = ended(processes)
    assert processes[0].returncode not in (0, None), said
    assert (out / "checkpoint.npz").exists()
    assert not (out / "result.json").exists()


def test_without_a_coordinator_they_are_refused_before_a_file_is_written(tmp_path):
    told = {"WORLD_SIZE": "2", "RANK": "0", "JAX_COORDINATOR_ADDRESS": None}
    done = command(*TRAIN, "--out", tmp_path / "run", **told)
    assert done.returncode == 2
    assert "need JAX_COORDINATOR_ADDRESS, the host:port of rank 0" in one_line(done)
    assert not (tmp_path / "run").exists()
