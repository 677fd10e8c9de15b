"""The jobs of a part of `benchmarks/gpu.sh`: what breaks takes nothing else along."""

from __future__ import annotations

import json

import pytest
from support.gpu_tools import checkout_python


@pytest.fixture
def python(tmp_path):
    return checkout_python(tmp_path)


JOB = """
import os
import signal
import time
from benchmarks.gpu.attempts import Attempts, Unavailable
from benchmarks.gpu.options import Options

def refuse():
    raise Unavailable("no such device")

def stubborn():  # as a compiler that is not in Python
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)

job = Attempts("{name}", "json", "part", Options.read(__doc__, 1), "device")
job.attempt("good", lambda: job.results.add("table", "{name}", value=1), 5)
{rest}
raise SystemExit(job.results.finish())
"""
SUPERVISED = """
from pathlib import Path
from benchmarks.gpu.jobs import Job, supervise
from benchmarks.gpu.options import Options

options = Options(Path("out"), "cpu", 60.0, False, ("json",))
names = {names}
jobs = [Job(name, "json", name, share) for name, share in names.items()]
raise SystemExit(supervise("part", options, [*jobs, Job("absent", "no_such_framework", "", 1.0)]))
"""


def supervised(python, tmp_path, jobs):
    """(exit status, content) of a part of these jobs: name to (last lines, share of 60 s)."""
    for name, (rest, _) in jobs.items():
        (tmp_path / f"{name}.py").write_text(JOB.format(name=name, rest=rest))
    names = {name: share for name, (_, share) in jobs.items()}
    done = python("-c", SUPERVISED.format(names=names))
    return done.returncode, json.loads((tmp_path / "out" / "part.json").read_text())


def named(entries):
    return [(entry["name"], entry["why"]) for entry in entries]


def test_what_crashes_or_hangs_takes_nothing_else_along(python, tmp_path):
    jobs = {
        "crashing": ("job.attempt('bad', lambda: os._exit(3), 5)", 1.0),
        "hanging": ("job.attempt('long', stubborn, 60)", 0.03),
        "fine": ("job.results.finish(), time.sleep(60)", 1.0),
    }
    status, found = supervised(python, tmp_path, jobs)
    assert status == 1
    assert [row["name"] for row in found["rows"]] == ["crashing", "hanging", "fine"]
    assert named(found["failed"]) == [("crashing", "RuntimeError: ended with status 3 in: bad")]
    [(hanging, why)] = named(found["skipped"])
    assert hanging == "hanging"
    assert why.endswith("in: long")
    assert found["complete"]


def test_a_configuration_that_fails_is_named_and_the_next_one_runs(python, tmp_path):
    rest = """
job.attempt("broken", lambda: 1 / 0, 5)
job.attempt("slow", lambda: time.sleep(30), 0.1)
job.attempt("elsewhere", refuse, 5)
job.attempt("last", lambda: job.results.add("table", "last", value=2), 5)
"""
    status, found = supervised(python, tmp_path, {"only": (rest, 1.0)})
    assert status == 1
    assert [row["name"] for row in found["rows"]] == ["only", "last"]
    assert named(found["failed"]) == [("broken", "ZeroDivisionError: division by zero")]
    assert named(found["skipped"]) == [
        ("slow", "its 0.1 s were over"),
        ("elsewhere", "no such device"),
    ]


def test_a_framework_that_is_not_there_is_skipped_by_name(python, tmp_path):
    code = SUPERVISED.format(names={}).replace('("json",)', '("json", "no_such_framework")')
    assert python("-c", code).returncode == 0
    found = json.loads((tmp_path / "out" / "part.json").read_text())
    assert named(found["skipped"]) == [("absent", "no_such_framework is not installed")]
