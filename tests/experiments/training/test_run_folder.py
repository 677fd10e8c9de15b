from __future__ import annotations

import subprocess
import sys
from threading import Event, Thread

import pytest

pytest.importorskip("filelock")
from loss_balance.experiments.errors import Interruption
from loss_balance.experiments.training.run_folder import alone

HOLD = """
import sys
from pathlib import Path
from loss_balance.experiments.training.run_folder import alone
with alone(Path(sys.argv[1]), lambda: False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that has the run's folder, until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_run_is_one_processs_at_a_time_and_the_others_wait(other, tmp_path):
    asked, entered = [], Event()

    def second():
        with alone(tmp_path / "run", lambda: asked.append(entered.is_set())):
            entered.set()

    thread = Thread(target=second, daemon=True)
    thread.start()
    while len(asked) < 3:
        assert thread.is_alive()
    other.kill()  # whoever dies lets go
    assert entered.wait(60)
    thread.join()
    assert not any(asked)


def test_who_waits_can_be_stopped(other, tmp_path):
    answers = iter([False, False, True])
    with pytest.raises(Interruption), alone(tmp_path / "run", lambda: next(answers)):
        raise AssertionError("entered")


def test_the_next_one_enters_once_the_first_has_left(tmp_path):
    for _ in range(2):
        with alone(tmp_path / "new" / "run", lambda: False):
            pass
