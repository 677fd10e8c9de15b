"""How long exits take at batch 1, and how far `predict` overshoots deadlines, in any framework."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.results import spread
from benchmarks.overshoot import Answers, Watched, overshoots, random_deadlines
from loss_balance.anytime import calibrate, ready

SECONDS = 0.4  # that each kind of call is repeated, about
PERCENTILES = (50, 90, 99, 100)


def add_rows(
    job: Attempts,
    network: str,
    way: str,
    answers: Answers,
    call: Callable[[Any], Any],
    x: Any,
    most: int,
) -> None:
    """The latency of each exit and of a call, and the overshoot with and without known times.

    Args:
        job: whose figures these are.
        network: its name.
        way: how it is run.
        answers: from an image, one exit at a time.
        call: all exits at once, what `answers` is compared with.
        x: an image.
        most: repeats.
    """
    for _ in range(3):
        runs = [_exit_times(answers, x)]
    count = min(most, max(3, int(SECONDS / runs[0][-1])))
    calls = []
    for _ in range(count):
        runs.append(_exit_times(answers, x))
        begun = time.perf_counter()
        ready(call(x)[-1])
        calls.append(time.perf_counter() - begun)
    of_exits = 1e3 * np.array(runs[1:]).T
    what = {"framework": job.framework, "way": way}
    job.results.add(
        "anytime",
        network,
        **what,
        first_ms=spread(of_exits[0].tolist()),
        last_ms=spread(of_exits[-1].tolist()),
        call_ms=spread([1e3 * value for value in calls]),
        exits_ms=np.median(of_exits, axis=1).tolist(),
    )
    _predictions(job, network, what, answers, x, count)


def _exit_times(answers: Answers, x: Any) -> list[float]:
    """Seconds from the start until each exit's answer was ready."""
    begun = time.perf_counter()
    times = []
    for logits in answers(x):
        ready(logits)
        times.append(time.perf_counter() - begun)
    return times


def _predictions(
    job: Attempts, network: str, what: dict[str, str], answers: Answers, x: Any, count: int
) -> None:
    net = Watched(answers, time.perf_counter)
    times = calibrate(net, x, max(3, count // 4), quantile=0.9, warm_up=3, clock=net.clock)
    longest = float(np.diff([0.0, *times]).max())
    deadlines = random_deadlines(times[-1], count)
    for known in (None, times):
        over, _, late = overshoots(net, x, deadlines, known)
        in_exits = np.percentile(over / longest, PERCENTILES)
        job.results.add(
            "predict",
            network,
            **what,
            expected_times="none" if known is None else "calibrated, quantile 0.9",
            predictions=count,
            longest_exit_ms=1e3 * longest,
            overshoot_exits=dict(zip(map(str, PERCENTILES), in_exits.tolist(), strict=True)),
            in_time_percent=100 * float((over <= 0).mean()),
            first_exit_late_percent=100 * late / count,
        )
