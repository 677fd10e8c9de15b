"""`--set name=value` and `--sweep name=value,value`: any field of recipe and scheme by its name."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from loss_balance.backends.interface import scheme_from_config
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import config_of_text
from loss_balance.schemes.base import Scheme

Settings = dict[str, Any]
RECIPE = tuple(f.name for f in fields(Recipe))


def settings(texts: Iterable[str]) -> Settings:
    """The values of some `name=value`.

    Raises:
        UserError: one is no such text, or a name comes twice.
    """
    found: Settings = {}
    for text in texts:
        name, value = _split("--set", text)
        if name in found:
            raise UserError(f"--set must name each field once, got {name} twice")
        found[name] = _value(value)
    return found


def sweeps(texts: Iterable[str]) -> list[Settings]:
    """All combinations of the values of some `name=value,value`; one empty one of none.

    Raises:
        UserError: one is no such text.
    """
    axes = []
    for text in texts:
        name, values = _split("--sweep", text)
        axes.append([(name, _value(value)) for value in _parts(values)])
    return [dict(chosen) for chosen in itertools.product(*axes)]


def described(changes: Mapping[str, Any]) -> str:
    """As the name of a scheme has it: `gamma=0.05`."""
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def set_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with those of the changes that are fields of it; ValueError if out of range."""
    mine = {name: value for name, value in changes.items() if name in RECIPE}
    if isinstance(mine.get("milestones"), list):
        mine["milestones"] = tuple(mine["milestones"])
    return replace(recipe, **mine)


def set_scheme(scheme: Scheme, changes: Mapping[str, Any]) -> Scheme:
    """The scheme with those of the changes that are fields of it; ValueError if out of range."""
    names = {f.name for f in fields(scheme) if f.init} - {"num_losses"}  # type: ignore[arg-type]
    mine = {name: value for name, value in changes.items() if name in names}
    return replace(scheme, **mine)  # type: ignore[type-var]


def check_known(changes: Iterable[str], schemes: Iterable[Scheme]) -> None:
    """UserError for a name that is a field neither of the recipe nor of any of the schemes."""
    of_schemes = {f.name for scheme in schemes for f in fields(scheme)}  # type: ignore[arg-type]
    known = {*RECIPE, *of_schemes} - {"num_losses"}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise UserError(
            f"--set and --sweep reach {', '.join(sorted(known))} here, got {', '.join(unknown)}"
        )


def _split(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name or not value.strip():
        raise UserError(f"{option} must be like gamma=0.1, got {text!r}")
    return name, value.strip()


def _value(text: str) -> Any:
    """A number, true, false, a list or a string as TOML has them, or a schedule as `Class(...)`."""
    if "(" in text:
        try:
            return scheme_from_config(config_of_text(text))
        except ValueError as error:
            raise UserError(f"a value must be like 0.1 or LinearSchedule(...), got {error}") from (
                error
            )
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _parts(text: str) -> list[str]:
    """What is between the commas that are in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
