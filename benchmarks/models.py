"""What the reference networks cost beside hand-written ones, and what stopping costs.

    python -m benchmarks.models torch            # or tensorflow, or jax; one thread is fairest
    python -m benchmarks.models jax --rounds 50

Two tables. A training step (forward, backward, SGD) as a ratio to the same layers written plainly
in that framework, without this package (`plain_<framework>.py`). And `anytime(x)` run to its end as
a ratio to calls of the same network, compiled where that is the framework's habit (`calls.py`).
Variants run interleaved; medians of the rounds' ratios with their quartiles.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import calls
from benchmarks.timing import Step, measure, ratio
from loss_balance.experiments.verification.probes import probe_of, random_batch
from loss_balance.reference_models import families

ANYTIME = ("resann-3-16", "denseann-6-12", "msdnet-18")


def anytime_pairs(framework: str, batch: int) -> dict[str, tuple[Step, Step]]:
    """Network and way of calling it to (all of `anytime`, that call)."""
    pairs: dict[str, tuple[Step, Step]] = {}
    for name in ANYTIME:
        spec = families.get(name)
        net, images = probe_of(framework).network(spec), random_batch(spec, batch)[0]
        answers, *ways = getattr(calls, framework)(net, images).items()
        pairs |= {f"{name}, {way}": (answers[1], call) for way, call in ways}
    return pairs


def show(console: Console, title: str, pairs: dict[str, tuple[Step, Step]], rounds: int) -> None:
    """A row per network."""
    table = Table(title=title, title_justify="left")
    for heading in ("network", "ratio", "ms of the second"):
        table.add_column(heading)
    for name, (ours, base) in pairs.items():
        seconds = measure({"ours": ours, "base": base}, rounds, 1)
        milliseconds = f"{1e3 * sorted(seconds['base'])[rounds // 2]:.1f}"
        table.add_row(name, ratio(seconds["ours"], seconds["base"]), milliseconds)
    console.print(table)


def main(
    framework: Annotated[str, typer.Argument(help="torch, tensorflow or jax.")],
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 20,
    batch: Annotated[int, typer.Option(help="Images of an anytime call.")] = 8,
) -> None:
    """Prints both tables."""
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    console = Console(width=100)
    plain = import_module(f"benchmarks.plain_{framework}")
    show(console, f"{framework}: training step over the plain network's", plain.pairs(), rounds)
    pairs = anytime_pairs(framework, batch)
    show(console, f"{framework}: anytime to its end over a call, batch {batch}", pairs, rounds)


if __name__ == "__main__":
    typer.run(main)
