"""`loss-balance models`: the published networks and what their exits cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.own import is_own, network_of
from loss_balance.reference_models import families
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.reference_models.description.spec import AnytimeSpec

CLASSES, SHAPE = 10, (32, 32, 3)  # what a function of the user's own is asked for


def show_all(num_classes: int | None) -> None:
    """A row per network; UserError if `num_classes` is not positive."""
    table = Table(title="Networks", title_justify="left")
    table.add_column("name", overflow="fold")
    for heading in ("input", "classes", "exits", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    specs = [get(name, num_classes) for name in families.PUBLISHED]
    for spec in specs:
        multiply_adds, parameters = spec.costs()[-1]
        table.add_row(
            spec.name,
            _shape(spec.input_shape),
            str(spec.num_classes),
            str(len(spec.exits)),
            f"{parameters:,}",
            f"{multiply_adds:,}",
        )
    console.print(table)
    console.say("\n  ".join(("Others by name:", *families.FORMS)))
    console.say("Multiply-adds are per image, all heads included; FLOPs are twice as many.")
    console.found([_as_json(spec) for spec in specs])


def show_one(name: str, num_classes: int | None) -> None:
    """A row per exit of the network called `name`; UserError if there is none."""
    spec = get(name, num_classes)
    total = spec.costs()[-1].multiply_adds
    title = f"{name}, {spec.num_classes} classes, input {_shape(spec.input_shape)}"
    table = Table(title=title, title_justify="left")
    for heading in ("exit", "after unit", "parameters", "multiply-adds", "of total"):
        table.add_column(heading, justify="right")
    for number, (unit, cost) in enumerate(zip(spec.exits, spec.costs(), strict=True), 1):
        share = f"{100 * cost.multiply_adds / total:.1f} %"
        parameters, multiply_adds = f"{cost.parameters:,}", f"{cost.multiply_adds:,}"
        table.add_row(str(number), str(unit), parameters, multiply_adds, share)
    console.print(table)
    console.say("All earlier heads included; units count from 0, as in the names of weights.")
    console.found(_as_json(spec))


def write_picture(name: str, num_classes: int | None, path: Path) -> None:
    """A picture of the network called `name`; UserError if there is none or no such format."""
    from loss_balance.experiments.pages.network_plot import draw  # a second for matplotlib

    spec = get(name, num_classes)
    if not isinstance(spec, AnytimeSpec):
        raise UserError(
            "--draw takes a network of the library's own, for a network of yours has no "
            f"description, got {name}"
        )
    try:
        draw(spec, path)
    except (ValueError, OSError) as error:
        raise UserError(f"--draw needs a file it can write, .png, .svg or .pdf: {error}") from error


def get(name: str, num_classes: int | None, input_shape: Shape | None = None) -> NetSpec:
    """`families.get` for what a user typed, or a network of their own."""
    if is_own(name):
        return network_of(name, num_classes or CLASSES, input_shape or SHAPE)
    try:
        return families.get(name, num_classes, input_shape=input_shape)
    except ValueError as error:
        raise UserError(str(error)) from error


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _as_json(spec: NetSpec) -> dict[str, Any]:
    costs = spec.costs()
    return {
        "name": spec.name,
        "input": list(spec.input_shape),
        "classes": spec.num_classes,
        "exits_after_unit": list(spec.exits),
        "multiply_adds": [cost.multiply_adds for cost in costs],
        "parameters": [cost.parameters for cost in costs],
    }


@opts.shows(progress=False)
def models(
    name: Annotated[str | None, typer.Argument(help="Show the exits of this network.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Logits per exit.", show_default="the network's own")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write a picture of NAME to this file.", show_default=False)
    ] = None,
) -> None:
    """List the networks with their exits, parameters and multiply-adds."""
    if name is None:
        if draw is not None:
            raise UserError("--draw needs the NAME of a network")
        show_all(classes)
        return
    show_one(name, classes)
    if draw is not None:
        write_picture(name, classes, draw)
