"""A part as jobs, each in a process of its own, and how a job spends its seconds.

One framework per process, for each would keep the GPU's memory from the other; and what crashes or
hangs takes its own job along, not the part.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.results import Results

ENDING = 1.5  # seconds that a process may take to end after its time


class Job(NamedTuple):
    """What one process does."""

    name: str
    framework: str  # "torch" or "jax"
    module: str  # has a main that takes what `Options` reads
    share: float  # of the seconds that are left when it starts


@dataclass(frozen=True)
class Options:
    """What a part or a job was asked for."""

    out: Path
    device: str
    seconds: float
    smallest: bool
    frameworks: tuple[str, ...]

    @staticmethod
    def read(about: str | None, seconds: float) -> Options:
        """From the command line; `seconds` by default."""
        parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
        parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
        parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        parser.add_argument("--seconds", type=float, default=seconds, help="for all of it")
        parser.add_argument("--smallest", action="store_true", help="the same code, in seconds")
        parser.add_argument("--frameworks", nargs="+", default=["torch", "jax"])
        given = parser.parse_args()
        frameworks = tuple(given.frameworks)
        return Options(given.out, given.device, given.seconds, given.smallest, frameworks)

    def arguments(self, seconds: float) -> list[str]:
        """For a job that has that long."""
        smallest = ["--smallest"] if self.smallest else []
        given = ["--out", str(self.out), "--device", self.device, "--seconds", f"{seconds:.1f}"]
        return [*given, *smallest]


class Clock:
    """Counts down from when it was made."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


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
    own = Results(_own_name(results.content["part"], job.name), options.out, options.device).path
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


def _own_name(part: str, job: str) -> str:
    return f"{part}-{job}"


def _environment(options: Options) -> dict[str, str]:
    platforms = "cuda,cpu" if options.device == "cuda" else "cpu"  # never CPU for want of a GPU
    return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": platforms}


class Unavailable(Exception):  # noqa: N818 (nothing went wrong)
    """What a configuration needs is not here: it is skipped, by name."""


class TimeUp(BaseException):
    """Seconds are over. Not an Exception, so that no library takes it for a failure of its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `TimeUp` in what takes longer, as soon as Python is at work again."""

    def over(_signal: int, _frame: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1.0)  # again, if one got lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Attempts:
    """One job's configurations: what breaks or takes too long is noted, and the next one runs.

    Args:
        job: its name, as in `Job`.
        framework: likewise.
        part: that it belongs to.
        options: as the job was asked.
        device: what the framework calls it.
        free: gives back the device memory that no one uses any more.
    """

    def __init__(
        self,
        job: str,
        framework: str,
        part: str,
        options: Options,
        device: str,
        free: Callable[[], object] = lambda: None,
    ) -> None:
        self.clock = Clock(options.seconds)
        self.results = Results(_own_name(part, job), options.out, device)
        self.free = free
        self.framework = framework

    def attempt(self, name: str, work: Callable[[], object], seconds: float) -> bool:
        """Does `work` within so many seconds, if they are left; whether it came to its end."""
        if self.clock.left() < min(seconds, 1.0):
            self.results.skip(name, "no time was left")
            return False
        seconds = min(seconds, self.clock.left())
        self.results.update(running=name)
        try:
            with limited(seconds):
                work()
        except TimeUp:
            self.results.skip(name, f"its {seconds:.3g} s were over")
        except Unavailable as why:
            self.results.skip(name, str(why))
        except Exception as error:
            traceback.print_exc()  # the log has all of it
            self.results.fail(name, error)
        else:
            return True
        finally:
            self.results.update(running=None)
            gc.collect()
            self.free()
        return False
