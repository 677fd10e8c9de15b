"""`--cluster`: runs by the workers of a Dask cluster, any of which may die, as may the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("distributed")

from support.experiments.clusters import (
    Processes,
    begun,
    epochs,
    is_free,
    meanwhile,
    until,
)
from support.experiments.command_line import call, one_line
from support.experiments.command_process import hearing_ctrl_c

from loss_balance.experiments.runs.cluster.worker import LEASE

SCHEMES = "support.experiments.cluster_schemes"
BOTH = f"{SCHEMES}:Slow,{SCHEMES}:Slower"
RUNS = ("Slow-seed0", "Slower-seed0")
QUICK = ("--data", "digits", "--network", "resann-1-4", "--epochs", "4", "--batch-size", "64")


def compare(out, *more, schemes=BOTH):
    return call("compare", *QUICK, "--schemes", schemes, "--out", out, *more)


def assert_same_runs(left, right):
    for name in RUNS:
        one, other = left / "runs" / name, right / "runs" / name
        assert (one / "result.json").read_bytes() == (other / "result.json").read_bytes()
        weights = [np.load(folder / "weights.npz") for folder in (one, other)]
        assert set(weights[0].files) == set(weights[1].files)
        for array in weights[0].files:
            assert weights[0][array].tobytes() == weights[1][array].tobytes()


def lines_of(printed):
    """The lines of epochs, without what depends on time."""
    found = re.findall(r"^(\S+) epoch (\d)/4: loss (\S+), .* left$", printed, re.MULTILINE)
    return sorted(found)


def rows_of(folder):
    """Those of epochs.csv, likewise."""
    rows = [line.split(",") for line in (folder / "epochs.csv").read_text().splitlines()]
    kept = [k for k, name in enumerate(rows[0]) if name not in ("seconds", "images_per_second")]
    return [[row[k] for k in kept] for row in rows]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """(folder, what was printed) of the runs on this machine, one after the other."""
    out = tmp_path_factory.mktemp("here") / "out"
    status, printed, complaint = compare(out, "--jobs", "1", "--log", "csv")
    assert status == 0, complaint
    return out, printed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One worker of two threads, until it dies."""
    processes = Processes(tmp_path_factory.mktemp("cluster"), workers=0)
    processes.add("--nthreads", "2")
    yield processes
    processes.end()


@pytest.fixture
def pair(cluster):
    """The cluster with two workers of one thread, so that both runs are trained at once."""
    if len(cluster.workers) != 2:
        cluster.kill_workers()
        cluster.add(), cluster.add()
    return cluster


@pytest.fixture(scope="module")
def there(cluster, tmp_path_factory):
    """Likewise by the cluster."""
    out = tmp_path_factory.mktemp("there") / "out"
    status, printed, complaint = compare(out, "--cluster", cluster.address, "--log", "csv")
    assert status == 0, complaint
    assert complaint == ""
    return out, printed


def test_results_are_bitwise_those_of_this_machine(here, there):
    assert_same_runs(here[0], there[0])


def test_progress_and_logs_are_told_as_here(here, there):
    assert len(lines_of(here[1])) == 8
    assert lines_of(there[1]) == lines_of(here[1])
    for name in RUNS:
        assert rows_of(there[0] / "runs" / name) == rows_of(here[0] / "runs" / name)


def names(out):
    return {path.name for path in (out / "runs").iterdir()}


def test_nothing_of_the_cluster_stays_in_the_folder(here, there):
    assert names(there[0]) == names(here[0])


def test_a_run_that_was_deleted_is_trained_again(cluster, there, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(there[0], out)
    shutil.rmtree(out / "runs" / RUNS[0])
    with open(cluster.address) as file:
        address = json.load(file)["address"]
    status, printed, complaint = compare(out, "--cluster", address, "--resume")
    assert status == 0, complaint
    assert {name for name, *_ in lines_of(printed)} == {RUNS[0]}
    assert_same_runs(there[0], out)


def test_a_killed_workers_run_goes_on_elsewhere(cluster, here, tmp_path):
    """Also on workers that come late: there are no others."""
    runs = [tmp_path / "out" / "runs" / name for name in RUNS]

    def kill():
        until(lambda: any(epochs(run) for run in runs))
        assert not any((run / "result.json").exists() for run in runs)
        cluster.kill_workers()
        cluster.brake.write_text("0")
        for _ in range(2):
            cluster.add()

    with cluster.slow(0.1), meanwhile(kill):
        status, _, complaint = compare(tmp_path / "out", "--cluster", cluster.address)
    assert status == 0, complaint
    assert complaint == ""
    assert_same_runs(here[0], tmp_path / "out")
    for run in runs:
        assert epochs(run) == 4


def test_ctrl_c_ends_runs_at_their_next_report_and_resume_goes_on(pair, here, tmp_path):
    out = tmp_path / "out"
    runs = [out / "runs" / name for name in RUNS]

    def interrupt():
        until(lambda: all(epochs(run) for run in runs))
        os.kill(os.getpid(), signal.SIGINT)

    with (
        hearing_ctrl_c(),
        pair.slow(0.5),
        meanwhile(interrupt),
    ):  # long enough to be in the middle of both
        status, printed, complaint = compare(out, "--cluster", pair.address)
        assert status == 130, complaint
        assert "--resume" in printed
        assert all(is_free(run) for run in runs)
        assert not any((run / "result.json").exists() for run in runs)
    assert compare(out, "--cluster", pair.address, "--resume")[0] == 0
    assert_same_runs(here[0], out)


def test_runs_stop_without_a_sign_of_life_and_go_on_with_one(pair, here, tmp_path):
    out = tmp_path / "out"
    runs = [out / "runs" / name for name in RUNS]
    arguments = ("compare", *QUICK, "--schemes", BOTH, "--out", out)
    with pair.slow(0.1), begun(*arguments, "--cluster", pair.address) as process:
        until(lambda: all(epochs(run) for run in runs))
        pair.brake.write_text("0.9")  # four epochs would take longer than the lease
        for ending, goes_on in ((signal.SIGSTOP, True), (signal.SIGKILL, False)):
            assert not any(is_free(run) for run in runs)
            process.send_signal(ending)
            until(lambda: all(is_free(run) for run in runs), 30 + 10 * 0.9)  # a report's steps
            assert not any((run / "result.json").exists() for run in runs)
            if goes_on:
                process.send_signal(signal.SIGCONT)
                until(lambda: not any(is_free(run) for run in runs))
    assert LEASE < 30
    assert compare(out, "--cluster", pair.address, "--resume")[0] == 0
    assert_same_runs(here[0], out)
    assert names(out) == names(here[0])


def test_an_error_of_one_run_ends_the_others_and_is_the_one_line(pair, here, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(here[0], out)
    damaged, other = (out / "runs" / name for name in RUNS)
    for run in (damaged, other):
        (run / "result.json").unlink()
        for name in ("checkpoint.npz", "previous.npz"):
            (run / name).unlink()
    (damaged / "checkpoint.npz").write_bytes(b"PK damaged")
    with pair.slow(0.1):
        line = one_line(*compare(out, "--cluster", pair.address, "--resume"))
    assert f"{damaged / 'checkpoint.npz'} cannot be read" in line
    assert is_free(other)
    assert not (other / "result.json").exists()


def test_without_a_worker_that_names_a_gpu_cuda_is_refused(cluster, tmp_path):
    line = one_line(*compare(tmp_path / "out", "--cluster", cluster.address, "--device", "cuda"))
    assert "workers that name their GPU" in line
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_eann_takes_it_too(cluster, tmp_path):
    small = (*QUICK[:2], "--epochs", "1", "--batch-size", "256", "--cluster", cluster.address)
    ensemble = ("--networks", "resann-1-4,resann-2-4", "--schemes", "const", "--repeats", "1")
    status, _, complaint = call("eann", *small, *ensemble, "--out", tmp_path / "eann")
    assert status == 0, complaint
    assert len(list((tmp_path / "eann").rglob("result.json"))) == 2
