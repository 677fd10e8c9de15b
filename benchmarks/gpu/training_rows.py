"""Measures training steps, interleaved, and tells them; the same in every framework."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.plan import Group, Trial, utilisation
from benchmarks.gpu.results import spread
from benchmarks.timing import Step, Timed, measure, ratios

SECONDS = 0.6  # that timing a pair of steps takes, about
SLACK = 5.0  # seconds that it may take, at most
ROUND = 0.02  # seconds of the slowest step's round, at least
BUILDING = {  # seconds at most, by mode
    "eager": 15.0,
    "CUDA graph": 15.0,
    "compiled by unit": 30.0,
    "compiled": 90.0,
}


class Built(NamedTuple):
    """A training step that has run."""

    step: Step
    multiply_adds: int  # of a forward pass, per image
    peak_mib: float | None  # of device memory, with weights and optimizer, if it is counted
    first_s: float  # seconds of the first step, all compiling in it


Build = Callable[[Group, Trial], Built]


def run(job: Attempts, group: Group, build: Build, timed: Timed, *, smallest: bool) -> None:
    """Builds the group's training steps and measures each as soon as it is there.

    The first stays, to be measured interleaved with each of the others.
    """
    pair: list[tuple[Trial, Built]] = []

    def work(trial: Trial) -> None:
        pair[1:] = []  # before the next one needs memory
        pair.append((trial, build(group, trial)))
        _measure(job, group, pair, timed, smallest=smallest)

    for trial in group.trials:
        job.attempt(f"{group}, {trial}", partial(work, trial), BUILDING[trial.mode] + SLACK)


def _measure(
    job: Attempts,
    group: Group,
    pair: list[tuple[Trial, Built]],
    timed: Timed,
    *,
    smallest: bool,
) -> None:
    """A row for the last of one or two, as ratio to the first."""
    steps = {str(trial): built.step for trial, built in pair}
    rounds, inner = (2, 1) if smallest else _repeats(list(steps.values()), timed)
    seconds = measure(steps, rounds, inner, timed)
    base, (trial, built) = str(pair[0][0]), pair[-1]
    taken = seconds[str(trial)]
    row = _row(job, group, trial, built, [value / inner for value in taken])
    row |= {"ratio": spread(ratios(taken, seconds[base])), "ratio_to": base}
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
