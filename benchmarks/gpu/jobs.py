"""A part as jobs, each in a process of its own.

One framework per process, for each would keep the GPU's memory from the other; and what crashes or
hangs takes its own job along, not the part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.attempts import Clock, own_name
from benchmarks.gpu.options import Options
from benchmarks.gpu.results import Results

ENDING = 1.5  # seconds that a process may take to end after its time


class Job(NamedTuple):
    """What one process does."""

    name: str
    framework: str  # "torch" or "jax"
    module: str  # has a main that takes what `Options` reads
    share: float  # of the seconds that are left when it starts


def supervise(part: str, options: Options, jobs: Sequence[Job]) -> int:
    """Runs the jobs one after the other and gathers their figures; the part's exit status.

    The part's file is up to date within a second, so a part that is killed loses nothing. What a
    job left behind in a file of its own goes into the part's.
    """
    clock = Clock(options.seconds)
    results = Results(part, options.out, options.device, seconds=options.seconds)
    for job in jobs:
        if job.framework not in options.frameworks:
            continue
        if not _found(job.framework):
            results.skip(job.name, f"{job.framework} is not installed")
        elif clock.left() < 2 * ENDING:
            results.skip(job.name, "no time was left")
        else:
            _run(job, options, results, (clock.left() - ENDING) * job.share)
    return results.finish()


def _run(job: Job, options: Options, results: Results, seconds: float) -> None:
    earlier = {key: results.content[key] for key in ("rows", "skipped", "failed")}
    own = Results(own_name(results.content["part"], job.name), options.out, options.device).path
    clock = Clock(seconds + ENDING)
    command = [sys.executable, "-m", job.module, *options.arguments(seconds)]
    found: dict[str, Any] = {"complete": False}
    with subprocess.Popen(command, env=_environment(options)) as process:
        while process.poll() is None and clock.left() > 0 and not found["complete"]:
            time.sleep(0.2)
            found = _gather(results, earlier, own)
        late = process.poll() is None
        process.kill()  # complete, it may still wait for compilers of its own
    found = _gather(results, earlier, own)
    own.unlink()
    if found["complete"]:
        return
    during = f" in: {found['running']}" if found.get("running") else ""
    if late:
        results.skip(job.name, f"stopped after its {seconds:.3g} s{during}")
    else:
        error = RuntimeError(f"ended with status {process.returncode}{during}")
        results.fail(job.name, error)


def _gather(results: Results, earlier: dict[str, Any], own: Path) -> dict[str, Any]:
    """Takes over what the job has by now, and returns it."""
    found: dict[str, Any] = json.loads(own.read_text())
    gathered = {key: before + found[key] for key, before in earlier.items()}
    results.update(device=found["device"], **gathered)
    return found


def _found(framework: str) -> bool:
    return find_spec(framework) is not None


def _environment(options: Options) -> dict[str, str]:
    platforms = "cuda,cpu" if options.device == "cuda" else "cpu"  # never CPU for want of a GPU
    return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": platforms}
