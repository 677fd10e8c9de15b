"""The `loss-balance` command in a process of its own, for what signals do to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

COMMAND = [sys.executable, "-m", "loss_balance"]
SMALL = ("--data", "digits", "--network", "resann-1-4", "--batch-size", "256")


def environment(**more):
    """This one, for plain and wide output; None takes a variable away."""
    found = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | more
    return {name: value for name, value in found.items() if value is not None}


def command(*arguments, launcher=COMMAND, timeout=240, **variables):
    """The finished process: `returncode`, `stdout`, `stderr`."""
    return subprocess.run(
        [*launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**variables),
    )


@contextlib.contextmanager
def hearing_ctrl_c():
    """Within, SIGINT interrupts this process and those it starts, also behind a "&"."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def begin(*arguments, launcher=COMMAND, **variables):
    """The running process, in a group of its own as a terminal gives it."""
    with hearing_ctrl_c():  # not in the child before it begins: a fork, which JAX warns of
        return subprocess.Popen(
            [*launcher, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**variables),
            start_new_session=True,
        )


def wait_for(happened, process, seconds=120):
    """Until `happened()`, which the process must live to see."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def one_line(done):
    """The complaint of a process that says what to mend."""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("loss-balance: ")
    return line
