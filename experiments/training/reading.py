"""Reads a run's files back: each is as training left it, or one line says which is not.

Every command reads run folders through here and `runs.trained`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.schemes import modern

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, EOFError)
METRICS = ("train_loss", "test_loss", "test_error")  # of `result.json`, per exit
CONFIG: dict[str, Any] = {  # the parts of a run's config.json, and what each is
    "network": str,
    "spec": dict,
    "scheme": dict,
    "coupling": dict,
    "recipe": dict,
    "seed": int,
    "data": dict,
    "fingerprint": str,
    "engine": dict,
}


@contextlib.contextmanager
def intact(path: Path, left_by: str = "training") -> Iterator[None]:
    """Whatever reading `path` raises within becomes one line that names it.

    Raises:
        UserError: it is missing, unreadable, or not as it was left.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} must be there, it is not") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UserError(f"{path} must be a file that can be read, got: {why}") from error
    except DAMAGED as error:
        raise UserError(f"{path} must be as {left_by} left it, got: {_said(error)}") from error


def read_json(path: Path, left_by: str = "training") -> dict[str, Any]:
    """An object of JSON; UserError for anything else."""
    with intact(path, left_by):
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} in place of an object")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json as this version writes it; UserError if it is none."""
    path = folder / "config.json"
    config = read_json(path)
    with intact(path):
        config = modern(config)
        for name, kind in CONFIG.items():
            if not isinstance(config.get(name), kind):
                raise ValueError(f"{name} {config.get(name)!r}")
    return config


def read_result(folder: Path, exits: int) -> dict[str, list[float]]:
    """A run's result.json, a number per exit; UserError if it is none."""
    path = folder / "result.json"
    result = read_json(path)
    with intact(path):
        return {name: _numbers(result, name, exits) for name in METRICS}


def read_metrics(folder: Path, exits: int | None = None) -> list[dict[str, Any]]:
    """The epochs of a run: `epoch`, and per exit `train_loss` and `loss_weight`.

    Newer runs have `seconds` and `images_per_second`, and where they were evaluated `test_loss` and
    `test_error` per exit.

    Raises:
        UserError: a line is not that, or there are not `exits` numbers in it.
    """
    path = folder / "metrics.jsonl"
    with intact(path):
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        for number, epoch in enumerate(epochs, 1):
            if epoch["epoch"] != number:
                raise ValueError(f"epoch {epoch['epoch']!r} in line {number}")
            for name in ("train_loss", "loss_weight", *(set(METRICS) & set(epoch))):
                _numbers(epoch, name, exits or len(epoch["loss_weight"]))
    return epochs


def _numbers(values: dict[str, Any], name: str, count: int) -> list[float]:
    found = values[name]
    numbers = isinstance(found, list) and all(type(x) in (int, float) for x in found)
    if not numbers or len(found) != count or not all(math.isfinite(x) and x >= 0 for x in found):
        raise ValueError(f"{name} {found!r} in place of {count} finite numbers")
    if name == "test_error" and max(found) > 1:
        raise ValueError(f"{name} {found!r} in place of shares")
    return [float(x) for x in found]


def _said(error: BaseException) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
