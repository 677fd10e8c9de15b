"""`--cluster`: all workers die, or the scheduler; and workers that the command starts itself."""

from __future__ import annotations

import os
import re
import signal

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # of distributed

from support.experiments.cluster_schemes import BRAKE
from support.experiments.clusters import (
    PATIENCE,
    Processes,
    begun,
    epochs,
    is_free,
    meanwhile,
    until,
)
from support.experiments.command_line import one_line, train

SCHEMES = "support.experiments.cluster_schemes"
OURS = (
    r"Waiting for the cluster's workers\.",
    r"out epoch \d+/9: loss .* left",
    r"Interrupted\. .* --resume .*",
)


@pytest.fixture
def frail(tmp_path_factory):
    """A cluster that gives a task up with the second worker that dies."""
    more = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    processes = Processes(tmp_path_factory.mktemp("frail"), **more)
    yield processes
    processes.end()


def test_a_run_that_ends_every_worker_or_has_no_scheduler_is_one_line(frail, tmp_path):
    given = ("--cluster", frail.address, "--scheme")
    line = one_line(*train(tmp_path / "deadly", *given, f"{SCHEMES}:Deadly"))
    assert line.startswith("loss-balance: deadly: 2 workers died in the same epoch of it")
    frail.kill_workers()
    frail.add()

    def kill():
        until((tmp_path / "out" / ".lock").exists)
        frail.scheduler.kill()

    with frail.slow(1.0), meanwhile(kill):
        line = one_line(*train(tmp_path / "out", *given, f"{SCHEMES}:Slow"))
    assert line.startswith("loss-balance: out: the cluster gave it up or is gone")
    until(lambda: is_free(tmp_path / "out"))


def test_workers_of_ours_may_die_and_are_deaf_to_ctrl_c(tmp_path):
    """And what Dask says of that is not shown."""
    out, brake = tmp_path / "out", tmp_path / "brake"
    brake.write_text("0.1")
    small = ("--data", "digits", "--network", "resann-1-4", "--epochs", "9", "--batch-size", "256")
    given = (*small, "--scheme", f"{SCHEMES}:Slow", "--out", out)
    with begun("train", *given, "--cluster", "local:2", **{BRAKE: str(brake)}) as command:
        until(lambda: epochs(out) >= 1)
        (worker,) = [
            child
            for child in psutil.Process(command.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        worker.kill()
        reached = epochs(out)
        until(lambda: epochs(out) > reached)
        os.killpg(command.pid, signal.SIGINT)
        printed, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130, printed
    for line in printed.splitlines():
        assert any(re.fullmatch(ours, line) for ours in OURS), printed
    assert "Interrupted" in printed
    assert is_free(out)
    assert not (out / "result.json").exists()
    assert not worker.is_running()
