"""The options that several commands share: the fields of `studies.plan.Options`, and a few more."""

from __future__ import annotations

import functools
import inspect
import json
import tomllib
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import processes
from loss_balance.experiments.studies.options import STUDY, Options
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.reading import intact
from loss_balance.experiments.training.schemes import SCHEMES

OUTPUT = "Output"
QUIET = "Show what was found alone, no progress."
JSON = "Print what was found as JSON; all else goes to stderr."


def names(text: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


Network = Annotated[
    str,
    typer.Option(
        help="A name as `loss-balance models` lists them, or your own package.module:spec."
    ),
]
Schemes = Annotated[
    str,
    typer.Option(help=f"Any of {', '.join(SCHEMES)}, or your own package.module:Class; commas."),
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


def shows(
    *, progress: bool = True, as_json: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command gets --quiet and --json; it calls `console.found` for the latter.

    Args:
        progress: whether the command shows what is going on, so that there is something to quiet.
        as_json: whether what it finds is anything that JSON can hold.
    """
    mine = [_flag("quiet", QUIET)] * progress + [_flag("json", JSON)] * as_json

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()
        ]

        @functools.wraps(command)
        def showing(**given: Any) -> None:
            quiet, wanted = given.pop("quiet", False), given.pop("json", False)
            with console.showing(progress=not quiet, as_json=wanted):
                command(**given)

        return _signed(showing, [*parameters, *mine])

    return decorate


def _flag(name: str, text: str) -> inspect.Parameter:
    option = typer.Option(f"--{name}", help=text, rich_help_panel=OUTPUT)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=False, annotation=Annotated[bool, option])


def _signed(
    command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """The command with these parameters for typer to read."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def takes_options(
    *, without: Collection[str] = (), joins: bool = True, **changed: dict[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the parameter `options` of a command becomes an option per field of `Options`.

    Args:
        without: fields that the command does not have; they keep their defaults.
        joins: whether several processes of it, as torchrun starts them, share its runs.
        changed: for a field, what this command says otherwise: `default`, `help`, `show_default`.
    """
    chosen = [f for f in fields(Options) if f.name not in without]
    types = get_type_hints(Options)
    mine = [_parameter(f, types[f.name], changed.get(f.name, {})) for f in chosen]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            by_name = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += [*mine, CONFIG] if parameter.name == "options" else [by_name]

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            processes.check_started(joins=joins)
            del given["config"]  # its values are in the others
            options = Options(**{f.name: given.pop(f.name) for f in chosen})
            command(options=options, **given)

        return _signed(with_options, parameters)

    return decorate


def _read_config(context: typer.Context, path: Path | None) -> None:
    """The values of a TOML file become the defaults of this call; those of [set] are for --set."""
    if path is None:
        return
    with intact(path, "TOML has it, or as a user"):
        values = {k.replace("-", "_"): v for k, v in tomllib.loads(path.read_text()).items()}
    known = {str(p.name) for p in context.command.params} - {"config"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"{path} must have options of this command, got {', '.join(unknown)}")
    if isinstance(values.get("set"), dict):
        values["set"] = [f"{name}={json.dumps(value)}" for name, value in values["set"].items()]
    for name in ("networks", "schemes", "data", "log"):
        if isinstance(values.get(name), list):
            values[name] = ",".join(map(str, values[name]))
    context.default_map = {**(context.default_map or {}), **values}


CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with options of this command, and a table `set` with those of --set.",
            show_default=False,
            is_eager=True,
            callback=_read_config,
            rich_help_panel=STUDY,
        ),
    ],
)


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
