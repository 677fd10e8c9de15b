"""Which trainings there are: as many trials for every method, then the best one on other seeds.

A trial is a setting and a learning rate, on one seed, judged on the validation part alone. The best
one is trained anew from seeds that no trial has seen, and only then is the test part looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.quality.methods import Method
from benchmarks.quality.problems.problem import Problem
from benchmarks.quality.training import train

RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)  # of Adam; TRIALS of them
TRIALS = len(RATES)
TUNING_SEED = 1000
SEEDS = (0, 1, 2)
LEAST = 1e-12  # of a metric, whose logarithm is taken
Outcome = list[float] | None  # metrics, None where the training diverged
Train = Callable[..., Outcome]


class Trial(NamedTuple):
    """What is tried."""

    setting: str
    rate: float


def trials(method: Method) -> list[Trial]:
    """As many for every method: all rates for one setting, every second one for two, ...

    Raises:
        ValueError: its settings cannot have equally many.
    """
    count = len(method.settings)
    if TRIALS % count:
        raise ValueError(f"a method must have 1, 2, 3 or {TRIALS} settings, got {count}")
    rates = RATES[count // 2 :: count]
    return [Trial(setting, rate) for setting in method.settings for rate in rates]


def score(metrics: Outcome) -> float:
    """What trials are compared by, the lower the better: the mean logarithm of the metrics.

    No metric's unit has a say in it.
    """
    if metrics is None:
        return math.inf
    return sum(math.log(max(m, LEAST)) for m in metrics) / len(metrics)


def compete(
    problem: Problem,
    method: Method,
    known: dict[str, Any],
    training: Train = train,
) -> Iterator[dict[str, Any]]:
    """The method's record as it grows: its trials, the best of them, and the test of each seed.

    Args:
        problem: to train on.
        method: what competes.
        known: the record so far; what is in it is not trained again.
        training: `train`, or what stands for it.
    """
    record: dict[str, Any] = {"trials": [], "test": {}, **known}
    every = trials(method)
    for trial in every[len(record["trials"]) :]:
        make = method.settings[trial.setting]
        found = training(problem, make, trial.rate, TUNING_SEED, "validation")
        record["trials"].append([*trial, found])
        yield record
    best = min(record["trials"], key=lambda tried: score(tried[2]))
    record["best"] = best[:2]
    for seed in SEEDS:
        if str(seed) not in record["test"]:
            make = method.settings[best[0]]
            record["test"][str(seed)] = training(problem, make, best[1], seed, "test")
            yield record
