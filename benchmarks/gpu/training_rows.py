"""Measures a group's training steps, interleaved, and tells them; the same in every framework."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.gpu.jobs import Attempts
from benchmarks.gpu.plan import Group, Trial, utilisation
from benchmarks.gpu.results import spread
from benchmarks.timing import Step, Timed, measure, ratios

SECONDS = 4.0  # that timing a group's steps may take
ROUND = 0.02  # seconds of the slowest step's round, at least
BUILDING = {"eager": 15.0, "CUDA graph": 15.0, "compiled": 60.0}  # seconds at most, by mode


class Built(NamedTuple):
    """A training step that has run."""

    step: Step
    multiply_adds: int  # of a forward pass, per image
    peak_mib: float | None  # of device memory, with weights and optimizer, if it is counted
    first_s: float  # seconds of the first step, all compiling in it


Build = Callable[[Group, Trial], Built]


def run(job: Attempts, group: Group, build: Build, timed: Timed, *, smallest: bool) -> None:
    """Builds every trial of a group, then measures those that could be built."""
    built: dict[Trial, Built] = {}

    def keep(trial: Trial) -> None:
        built[trial] = build(group, trial)

    for trial in group.trials:
        job.attempt(f"{group}, {trial}", partial(keep, trial), BUILDING[trial.mode])
    if built:
        work = partial(_measure, job, group, built, timed, smallest=smallest)
        job.attempt(f"{group}, timing", work, 4 * SECONDS)


def _measure(
    job: Attempts, group: Group, built: dict[Trial, Built], timed: Timed, *, smallest: bool
) -> None:
    steps = {str(trial): each.step for trial, each in built.items()}
    rounds, inner = (2, 1) if smallest else _repeats(list(steps.values()), timed)
    seconds = measure(steps, rounds, inner, timed)
    first = next(iter(seconds))
    for trial, each in built.items():
        taken = seconds[str(trial)]
        row = _row(job, group, trial, each, [value / inner for value in taken])
        row |= {"ratio": spread(ratios(taken, seconds[first])), "ratio_to": first}
        job.results.add("training", str(group), **row)


def _row(
    job: Attempts, group: Group, trial: Trial, built: Built, seconds: list[float]
) -> dict[str, Any]:
    step_ms = spread([1e3 * value for value in seconds])
    images_per_s = group.batch / step_ms["median"] * 1e3
    device = job.results.content["device"]
    return {
        "framework": job.framework,
        "trial": str(trial),
        "step_ms": step_ms,
        "images_per_s": images_per_s,
        "peak_mib": built.peak_mib,
        "utilisation": utilisation(built.multiply_adds, images_per_s, device),
        "first_s": built.first_s,
    }


def _repeats(steps: list[Step], timed: Timed) -> tuple[int, int]:
    """(rounds, steps of each in a round) that take about SECONDS."""
    each = [timed(step, 1) for step in steps]
    inner = max(1, round(ROUND / max(each)))
    return min(30, max(4, int(SECONDS / (inner * sum(each))) - 2)), inner
