"""`loss-balance verify`: the tables of what the two verifications found."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.terminal import console
from loss_balance.experiments.verification import balancers, networks
from loss_balance.experiments.verification.balancers import STEPS, TOLERANCE, BalancerVerdict
from loss_balance.experiments.verification.isolation import installed
from loss_balance.experiments.verification.networks import NetworkVerdict
from loss_balance.experiments.verification.probes import PROBES


def show_balancers(sequences: int, seed: int) -> list[BalancerVerdict]:
    """Verifies all installed frameworks, prints a row for each, and returns the verdicts.

    Raises:
        UserError: `sequences` is not positive, or a framework cannot be run.
    """
    if sequences < 1:
        raise UserError(f"sequences must be a whole number of at least 1, got {sequences}")
    names = ", ".join(installed())
    with (
        tempfile.TemporaryDirectory() as folder,
        console.working(f"verifying {names}: {sequences} sequences of {STEPS} steps"),
    ):
        verdicts = list(balancers.verify(Path(folder), sequences, seed))
    console.print(_table(verdicts))
    console.say(
        f"Allowed: {TOLERANCE['float32']:g} in float32, {TOLERANCE['float64']:g} in float64, each "
        "weight against plain Python scalars."
    )
    return verdicts


def show_networks(*, full_size: bool) -> list[NetworkVerdict]:
    """Compares the networks of all installed frameworks, and returns the verdicts.

    Raises:
        UserError: a framework cannot be run.
    """
    names = [name for name in installed() if name in PROBES]
    if len(names) < 2:
        console.say(f"Networks: {' '.join(names) or 'no framework'} alone here, none to compare.")
        return []
    with (
        tempfile.TemporaryDirectory() as folder,
        console.working(f"networks in {', '.join(names)}: inference, gradients, training"),
    ):
        verdicts = list(networks.verify(Path(folder), full_size=full_size))
    table = Table(title="Networks: worst difference from any other framework", title_justify="left")
    table.add_column("")
    for heading in ("at most", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, allowed in networks.TOLERANCE.items():
        table.add_row(kind, f"{allowed:g}", *(f"{v.worst[kind]:.1e}" for v in verdicts))
    table.add_row("", "", *("agrees" if v.agrees else "DIFFERS" for v in verdicts))
    console.print(table)
    large = f"{', '.join(networks.FULL_SIZE)} in inference at 224x224; " if full_size else ""
    console.say(
        "Each relative to the largest such value of the same network. Small networks with every "
        f"kind of part; {large}an epoch of resann-1-4 on {networks.SOURCE.name} in each learner "
        "with AdaLoss, guided, and with GradientNorm."
    )
    return verdicts


def _table(verdicts: list[BalancerVerdict]) -> Table:
    table = Table(title="Worst relative error of any weight", title_justify="left")
    for heading in ("framework", "version"):
        table.add_column(heading, no_wrap=True)
    for heading in ("drawn", *TOLERANCE, "state from\nelsewhere"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for verdict in verdicts:
        table.add_row(
            verdict.framework,
            verdict.version,
            str(verdict.sequences),
            *(f"{verdict.worst[dtype]:.1e}" for dtype in TOLERANCE),
            "alone here" if verdict.continued is None else f"{verdict.continued:.1e}",
            "agrees" if verdict.agrees else "DIFFERS",
        )
    return table


@opts.shows()
def verify(
    sequences: Annotated[int, typer.Option(help="Drawn sequences per framework.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    networks: Annotated[bool, typer.Option(help="Compare the networks too.")] = True,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Among them some of ILSVRC's size; minutes more.")
    ] = False,
) -> None:
    """Check that every installed framework gives the weights of an independent oracle.

    Also that a state exported half way from any of them continues in any other, and that their
    networks compute and train the same from the same weights.
    """
    balancing = show_balancers(sequences, seed)
    computing = show_networks(full_size=full_size) if networks else []
    console.found(
        {
            "balancers": [{**asdict(v), "agrees": v.agrees} for v in balancing],
            "networks": [{**asdict(v), "agrees": v.agrees} for v in computing],
        }
    )
    if not all(v.agrees for v in balancing) or not all(v.agrees for v in computing):
        raise typer.Exit(1)
