"""What the weighted sum costs in PyTorch, against `sum(losses)` and other libraries.

All variants run interleaved in one process, so that what else the machine does hits all alike; the
table shows medians of the ratio to `sum(losses)` over the rounds, with their quartiles. Absolute
times on a shared machine mean little.

    python -m benchmarks.balancers                 # CPU, one thread
    python -m benchmarks.balancers --device cuda

TorchJD's schemes join in if it is installed (`pip install torchjd`).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.combining import STEPS, combinations, training_step
from benchmarks.timing import BASE, Step, measure, on_host, ratio


def training_steps(exits: int, device: str, *, compiled: bool) -> dict[str, Step]:
    """A training step of every way to combine the losses."""
    compiler = partial(torch.compile, fullgraph=True) if compiled else None
    return {name: training_step(name, exits, device, compiler) for name in STEPS}


def _measure(
    variants: dict[str, Step], rounds: int, inner: int, device: str
) -> dict[str, list[float]]:
    timed = on_host(torch.cuda.synchronize) if device == "cuda" else on_host()
    return measure(variants, rounds, inner, timed)


def show(console: Console, title: str, columns: dict[str, dict[str, list[float]]]) -> None:
    """A row per variant, a column per setting: median ratio to the first row, and quartiles."""
    table = Table(title=title, title_justify="left")
    table.add_column(f"ratio to {BASE}")
    for column in columns:
        table.add_column(column, justify="right")
    for name in next(iter(columns.values())):
        table.add_row(name, *(ratio(seconds[name], seconds[BASE]) for seconds in columns.values()))
    console.print(table)


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 30,
    compiled: Annotated[bool, typer.Option(help="The whole step under torch.compile too.")] = True,
) -> None:
    """Prints the cost of balancing as ratios to sum(losses)."""
    torch.set_num_threads(1)
    console = Console(width=120)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread"
    console.print(f"torch {torch.__version__}, {name}, {rounds} rounds")
    hot = {
        f"{n} losses": _measure(combinations(n, device), rounds, 50, device) for n in (4, 9, 25, 75)
    }
    show(console, "The combination alone, forward and backward", hot)
    steps = {"eager": _measure(training_steps(9, device, compiled=False), rounds, 20, device)}
    if compiled:
        steps["compiled"] = _measure(training_steps(9, device, compiled=True), rounds, 20, device)
    show(console, "A whole training step, 9 exits", steps)


if __name__ == "__main__":
    typer.run(main)
