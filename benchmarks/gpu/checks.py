"""What must hold on the device: the contracts of balancers and networks, PyTorch, then JAX.

python -m benchmarks.gpu.checks --out DIR --device cuda --seconds 90

They are tests, `test_gpu.py` in tests/backends/torch and jax; weights go from the first to
the second.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks.gpu.attempts import Clock
from benchmarks.gpu.options import Options
from benchmarks.gpu.results import Results

ROOT = Path(__file__).parents[2]
SMALLEST = {  # what walks the code in seconds
    "torch": "checkpoint or absent or capture or compiled or scaler or networks or learner or left",
    "jax": "absent or asked or carried or (networks and resann-2)",
}
LINE = re.compile(r"^(\S+::.*) (PASSED|FAILED|ERROR|SKIPPED)")


class Outcome(NamedTuple):
    """One test: its name, "passed", "failed" or "skipped", and why if not the first."""

    name: str
    state: str
    why: str = ""


def check(options: Options) -> int:
    """Runs the tests of each framework in a process of its own; the part's exit status."""
    clock = Clock(options.seconds)
    results = Results("checks", options.out, options.device, seconds=options.seconds)
    for k, framework in enumerate(options.frameworks):
        if find_spec(framework) is None:
            results.skip(f"{framework} tests", f"{framework} is not installed")
            continue
        share = 1.0 if k + 1 == len(options.frameworks) else 0.55  # what hangs starves nobody
        ended = _run(framework, options, share * clock.left())
        outcomes = list(_outcomes(options.out, framework))
        counts = {
            state: sum(outcome.state == state for outcome in outcomes)
            for state in ("passed", "failed", "skipped")
        }
        results.add("tests", framework, **counts)
        for outcome in outcomes:
            if outcome.state == "skipped":
                results.skip(outcome.name, outcome.why)
            elif outcome.state == "failed":
                results.fail(outcome.name, AssertionError(outcome.why))
        if not ended:
            results.fail(f"{framework} tests", TimeoutError("the time was over before the last"))
        elif not counts["passed"]:
            log = _file(options.out, framework, "log").read_text()[-400:]
            results.fail(f"{framework} tests", RuntimeError(f"none passed: {log}"))
    return results.finish()


def _run(framework: str, options: Options, seconds: float) -> bool:
    """False if the time was over before the tests were."""
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--tb=short"),
        *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")),
        f"--junitxml={_file(options.out, framework, 'xml')}",
        str(ROOT / "tests" / "backends" / framework / "test_gpu.py"),
    ]
    if options.smallest:
        command += ["-k", SMALLEST[framework]]
    carried = options.out / "carried"
    carried.mkdir(exist_ok=True)
    environment = os.environ | {
        "LOSS_BALANCE_DEVICE": options.device,
        "LOSS_BALANCE_CARRY": str(carried.resolve()),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PLATFORMS": "cuda,cpu" if options.device == "cuda" else "cpu",
        "PYTHONUNBUFFERED": "1",
        "LOSS_BALANCE_REQUIRE": "",  # whatever is there will do
    }
    with _file(options.out, framework, "log").open("w") as log:
        try:
            subprocess.run(
                command, stdout=log, stderr=log, env=environment, timeout=max(seconds, 1.0)
            )
        except subprocess.TimeoutExpired:
            return False
    return True


def _outcomes(folder: Path, framework: str) -> Iterator[Outcome]:
    """The outcomes in pytest's report, or in its log where it did not come to write one."""
    report = _file(folder, framework, "xml")
    if not report.is_file():
        states = {"PASSED": "passed", "SKIPPED": "skipped"}
        for line in _file(folder, framework, "log").read_text().splitlines():
            if found := LINE.match(line):
                yield Outcome(found[1], states.get(found[2], "failed"))
        return
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        marks = {mark.tag: mark.get("message") or "" for mark in case}
        for tag, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            if tag in marks:
                yield Outcome(name, state, marks[tag])
                break
        else:
            yield Outcome(name, "passed")


def _file(folder: Path, framework: str, ending: str) -> Path:
    return folder / f"checks-{framework}.{ending}"


if __name__ == "__main__":
    raise SystemExit(check(Options.read(__doc__, 90)))
