"""A Dask cluster of processes that die one by one, and what tests do while a command runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time

from filelock import FileLock, Timeout
from support.experiments.cluster_schemes import BRAKE
from support.experiments.command_process import begin

PATIENCE = 120.0  # seconds for anything at all to happen
QUIET = {"OMP_NUM_THREADS": "1"}


def until(holds, seconds=PATIENCE):
    """Waits for it, and fails if it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


class Processes:
    """A scheduler and workers, each a process of its own, that write to `folder`."""

    def __init__(self, folder, workers=2, **environment):
        self.folder = folder
        self.address = folder / "scheduler.json"
        self.brake = folder / "brake"
        self.environment = os.environ | QUIET | {BRAKE: str(self.brake)} | environment
        self.workers = []
        given = ("--port", "0", "--no-dashboard", "--scheduler-file", self.address)
        self.scheduler = self._start("scheduler", *given)
        until(self.address.exists)
        for _ in range(workers):
            self.add()

    def add(self, *more):
        """A worker that begins while others run."""
        given = ("--nthreads", "1", "--no-nanny", "--no-dashboard", *more)
        self.workers.append(self._start("worker", *given, "--scheduler-file", self.address))
        return self.workers[-1]

    def _start(self, kind, *arguments):
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments)],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    @contextlib.contextmanager
    def slow(self, seconds):
        """Within, a step takes at least so long."""
        self.brake.write_text(str(seconds))
        try:
            yield
        finally:
            self.brake.unlink()

    def kill_workers(self):
        while self.workers:
            worker = self.workers.pop()
            worker.kill()
            worker.wait(PATIENCE)

    def end(self):
        self.kill_workers()
        self.scheduler.kill()
        self.scheduler.wait(PATIENCE)


@contextlib.contextmanager
def meanwhile(do):
    """Within, `do` goes on beside; what it raises comes at the end."""
    raised = []

    def run():
        try:
            do()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def epochs(run):
    """How many a run's folder counts."""
    file = run / "metrics.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def is_free(run):
    """Whether nobody is at the run."""
    try:
        with FileLock(run / ".lock").acquire(timeout=0):
            return True
    except Timeout:
        return False


@contextlib.contextmanager
def begun(*arguments, **environment):
    """The command as a process and a group of its own, as a terminal has it."""
    with begin(*arguments, **QUIET, **environment) as process:
        try:
            yield process
        finally:
            process.kill()
