"""Finished runs read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data import Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.run_folder import read_metrics
from loss_balance.reference_models.config import from_config
from loss_balance.reference_models.spec import AnytimeSpec

REQUIRED = ("network", "spec", "scheme", "recipe", "seed", "data", "fingerprint", "engine")


@dataclass(frozen=True)
class FinishedRun:
    """What `training.train` left in a folder; the arrays are per exit."""

    folder: Path
    config: dict[str, Any]  # as of `Run.config`
    result: dict[str, list[float]]  # as of `training.train`

    @property
    def spec(self) -> AnytimeSpec:
        """The network; UserError if config.json does not describe one."""
        try:
            return from_config(self.config["spec"])
        except ValueError as error:
            raise UserError(f"{self.folder / 'config.json'}: {error}") from error

    @property
    def source(self) -> Source:
        """The data it was trained on."""
        return Source.from_config(self.config["data"])

    @property
    def scheme(self) -> str:
        """The name of the scheme's class: `AdaLoss`."""
        return str(self.config["scheme"]).partition("(")[0]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """As of `run_folder.read_metrics`."""
        return read_metrics(self.folder)

    @property
    def weights_over_time(self) -> NDArray[np.float64]:
        """The weight of each exit's loss after each epoch, (epochs, exits)."""
        return np.array([epoch["loss_weight"] for epoch in self.metrics])


def read(folder: Path) -> FinishedRun:
    """The run in `folder`.

    Raises:
        UserError: there is none, it is not finished, or a file is damaged.
    """
    config = _json(folder / "config.json", folder)
    missing = [name for name in REQUIRED if name not in config]
    if missing:
        raise UserError(f"{folder} holds no run: its config.json lacks {', '.join(missing)}")
    if not (folder / "result.json").exists():
        raise UserError(f"the run in {folder} is not finished: the command that began it goes on")
    return FinishedRun(folder, config, _json(folder / "result.json", folder))


def find(places: Sequence[Path]) -> list[FinishedRun]:
    """The runs in each place: a run's folder, or all finished runs somewhere below it.

    Raises:
        UserError: a place has none.
    """
    runs: dict[Path, FinishedRun] = {}
    for place in places:
        folders = [file.parent for file in sorted(place.rglob("result.json"))]
        if not folders:
            raise UserError(f"no finished run in {place}: a run's folder has a result.json")
        for folder in folders:
            runs.setdefault(folder.resolve(), read(folder))
    return list(runs.values())


def _json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no run in {folder}: it has no {file.name}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a JSON object, got a {type(content).__name__}")
    return content
