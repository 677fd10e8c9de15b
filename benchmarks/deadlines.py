"""How far predictions overshoot random deadlines, on a real clock.

    python -m benchmarks.deadlines torch         # or tensorflow, or jax
    python -m benchmarks.deadlines torch --network resann-9-32 --predictions 1000
    python -m benchmarks.deadlines torch --cpu-time

One image at a time, deadlines drawn evenly from 0 to 1.2 times the whole network's time. Overshoot
is when the call returned minus the deadline; below 0 it was back before. The bound is one exit, for
an exit cannot be interrupted, and what the runtime itself takes: the last row is the overshoot
without the exit that ran last. Once without knowing times, where an exit is begun whenever time is
left, and once with calibrated ones, where it is begun only if it should be done in time.

On a wall clock what else the machine does counts: an exit during which others computed takes longer
than it usually does. With --cpu-time the clock stands still meanwhile.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.overshoot import Watched, overshoots, random_deadlines
from loss_balance.anytime import calibrate
from loss_balance.experiments.training.learners.by_framework import use_one_thread
from loss_balance.experiments.verification.probes import probe_of, random_batch
from loss_balance.reference_models import families

PERCENTILES = (50, 90, 99, 99.9, 100)


def main(
    framework: Annotated[str, typer.Argument(help="torch, tensorflow or jax.")],
    network: Annotated[str, typer.Option(help="By name.")] = "resann-2-16",
    predictions: Annotated[int, typer.Option(help="How many.")] = 10_000,
    quantile: Annotated[float, typer.Option(help="Of the calibrated times.")] = 0.9,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Count what this process computed alone.")
    ] = False,
) -> None:
    """Prints a table of percentiles for both ways."""
    use_one_thread(framework)
    probe, spec = probe_of(framework), families.get(network)
    clock = time.process_time if cpu_time else time.perf_counter
    net = Watched(partial(probe.anytime, probe.network(spec)), clock)
    images = random_batch(spec, 1)[0]
    times = calibrate(net, images, 200, quantile=quantile, warm_up=10, clock=clock)
    steps = np.diff([0.0, *times])
    deadlines = random_deadlines(times[-1], predictions)
    console = Console(width=100)
    which, longest, total = "CPU" if cpu_time else "wall", 1e3 * steps.max(), 1e3 * times[-1]
    console.print(
        f"{framework}, {network}, {which} time: {len(times)} exits, {total:.2f} ms in all, longest "
        f"exit {longest:.2f} ms; {predictions} random deadlines up to {1.2 * total:.2f} ms"
    )
    for title, known in (("without expected times", None), ("with expected times", times)):
        table = Table(title=title, title_justify="left")
        for heading in ("overshoot", *(f"{p} %" for p in PERCENTILES)):
            table.add_column(heading, justify="right")
        seconds, lasts, late = overshoots(net, images, deadlines, known)
        rows = {
            "ms": 1e3 * seconds,
            "of the longest exit's time": seconds / steps.max(),
            "ms without the last exit": 1e3 * (seconds - lasts),
        }
        for name, values in rows.items():
            table.add_row(name, *(f"{value:.3f}" for value in np.percentile(values, PERCENTILES)))
        console.print(table)
        console.print(f"back in time: {100 * (seconds <= 0).mean():.1f} %; first exit late: {late}")


if __name__ == "__main__":
    typer.run(main)
