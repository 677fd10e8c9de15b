"""The options that several commands share: the fields of `studies.plan.Options`, and a few more."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from loss_balance.experiments.studies.plan import TRAINING, Options
from loss_balance.experiments.training.schemes import SCHEMES

OUTPUT = "Output"


def names(text: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


Network = Annotated[str, typer.Option(help="A name as `loss-balance models` lists them.")]
Schemes = Annotated[str, typer.Option(help=f"Any of {', '.join(SCHEMES)}; with commas.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Runs side by side, one thread each.",
        show_default="one per core",
        rich_help_panel=TRAINING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue what an interrupted run left in --out.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Discard what is in --out.", rich_help_panel=OUTPUT)
]


def takes_options(
    *, without: Collection[str] = (), **changed: dict[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the parameter `options` of a command becomes an option per field of `Options`.

    Args:
        without: fields that the command does not have; they keep their defaults.
        changed: for a field, what this command says otherwise: `default`, `help`, `show_default`.
    """
    chosen = [f for f in fields(Options) if f.name not in without]
    types = get_type_hints(Options)
    mine = [_parameter(f, types[f.name], changed.get(f.name, {})) for f in chosen]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            by_name = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += mine if parameter.name == "options" else [by_name]

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            options = Options(**{f.name: given.pop(f.name) for f in chosen})
            command(options=options, **given)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _parameter(described: Field[Any], kind: Any, changed: dict[str, Any]) -> inspect.Parameter:
    """A field as typer reads a parameter."""
    shown = {**described.metadata, "default": described.default, **changed}
    option = typer.Option(
        *shown.get("flags", ()),
        help=shown["help"],
        show_default=shown.get("show_default", True),
        rich_help_panel=shown["panel"],
    )
    return inspect.Parameter(
        described.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=shown["default"],
        annotation=Annotated[kind, option],
    )
