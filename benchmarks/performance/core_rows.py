"""What needs no framework: laying out an ensemble, finding its answer, a step of the balancer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.performance.rows import Options, Row, tell
from loss_balance import AdaLoss, eann
from loss_balance.backends.numpy import Balancer

TABLE = "The core, without a framework"
ENSEMBLES = "The core, ensembles"


def rows(options: Options) -> Iterator[Row]:
    """Seconds and microseconds of single calls."""
    rng = np.random.default_rng(0)
    for exits in (1_000,) if options.quick else (1_000, 100_000):
        members = [
            [eann.Exit(k + 1, error) for k, error in enumerate(rng.random(exits // 10).tolist())]
            for _ in range(10)
        ]
        events = eann.schedule(members)
        column = f"{exits} exits"
        yield Row.of(
            TABLE, "eann.schedule", column, timed(lambda m=members: eann.schedule(m)), " s"
        )
        budgets = rng.uniform(0, events[-1].time, 100).tolist()
        taken = timed(lambda b=budgets, e=events: [eann.answer(e, budget) for budget in b])
        each = [1e4 * seconds for seconds in taken]  # microseconds of one of a hundred
        yield Row.of(ENSEMBLES, "eann.answer", column, each, " us")
    for count in options.counts:
        balance, losses = Balancer(AdaLoss(count)), rng.random(count)
        taken = timed(lambda b=balance, x=losses: [b(x) for _ in range(100)])
        each = [1e4 * seconds for seconds in taken]
        yield Row.of(TABLE, "Balancer of NumPy", f"{count} losses", each, " us")


def timed(call: Callable[[], object], repeats: int = 7) -> list[float]:
    """Seconds of each of some calls."""
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return found


if __name__ == "__main__":
    tell(rows)
