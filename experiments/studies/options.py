"""What a training command is asked for: `Options` has the one text of each option.

The commands show its fields (`commands.options`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.equilibrium import STRENGTH
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.pictures import broken
from loss_balance.experiments.data.sources import NAMES, Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import processes
from loss_balance.experiments.runs.logs import LOGS, check_logs
from loss_balance.experiments.runs.places import Place, place_of
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.engine import FRAMEWORKS, STRATEGIES, Engine, choose_engine
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.schemes.adaloss import AdaLoss

TRAINING, ADALOSS, GUIDANCE, STUDY = "Training", "AdaLoss", "Guidance", "Study"  # in the help
MACHINES = "Machines"


def _option(default: Any, text: str, panel: str | None = None, **shown: Any) -> Any:
    """A field with what the help says of it: `flags` (how it is written) and `show_default`."""
    return field(default=default, metadata={"help": text, "panel": panel, **shown})


def _per_data(name: str) -> str:
    """The default of a recipe's field: the usual one, and the data sets with another."""
    values = {data: getattr(recipe, name) for data, recipe in RECIPES.items()}
    usual = Counter(values.values()).most_common(1)[0][0]
    each = ", ".join(f"{data} {value}" for data, value in values.items() if value != usual)
    return f"Default: {usual}; {each}."


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained and how, as the user says it; a new option is one field.

    Those of the panel AdaLoss are hyperparameters of it, by name; None leaves it its own default.
    """

    framework: str = _option(
        "torch",
        f"What to train in: {', '.join(FRAMEWORKS)}.",
        flags=("--framework", "--backend"),  # the second one is its name in 0.1
    )
    data: str = _option("digit-pairs", f"Data set: {', '.join(NAMES)}.")
    path: Path | None = _option(  # noqa: RUF009 (a field)
        None,
        "Where its files are. An npz has x_train, y_train, x_test, y_test; images (N, H, W, C).",
        show_default=False,
    )
    download: bool = _option(False, "Fetch what is missing at --path.", flags=("--download",))
    validation: bool = _option(
        False,
        "Test on the last tenth of the training images, 5,000 at most.",
        flags=("--validation",),
    )
    skip_broken: bool = _option(
        False, "Go without images that cannot be read; reads them all.", flags=("--skip-broken",)
    )
    augment: str | None = _option(
        None,
        f"What happens to training images: {', '.join(AUGMENTATIONS)}.",
        show_default="the data set's own way",
    )
    epochs: int | None = _option(None, _per_data("epochs"), TRAINING)
    learning_rate: float | None = _option(None, _per_data("learning_rate"), TRAINING)
    batch_size: int | None = _option(None, _per_data("batch_size"), TRAINING)
    seeds: str = _option(
        "1", "Runs per scheme: how many (seeds 0, 1, ...), or which, as 3,7,11.", TRAINING
    )
    device: str = _option("cpu", "cpu or cuda.", TRAINING)
    precision: str | None = _option(
        None, "float32 or bfloat16.", TRAINING, show_default="bfloat16 on cuda"
    )
    compiled: bool | None = _option(
        None,
        "Compile the training step (torch, and XLA for tensorflow).",
        TRAINING,
        flags=("--compile/--no-compile",),
        show_default="on cuda",
    )
    gamma: float | None = _option(AdaLoss.gamma, "Share of constant weights.", ADALOSS)
    decay: float | None = _option(AdaLoss.decay, "Of the running means, below 1.", ADALOSS)
    final_weight: float | None = _option(AdaLoss.final_weight, "Factor for the last exit.", ADALOSS)

    guidance: float = _option(
        STRENGTH, "How strongly exits learn from the last one in guided.", GUIDANCE
    )
    set: list[str] | None = _option(  # noqa: RUF009
        None, "Any field of recipe or scheme, as decay=0.95; once for each.", STUDY
    )
    sweep: list[str] | None = _option(  # noqa: RUF009
        None, "Likewise with several values, as gamma=0,0.05,0.2: a scheme becomes as many.", STUDY
    )
    evaluate_every: int = _option(
        0, "Test after every so many epochs, 0 at the end alone; keeps best.npz too.", STUDY
    )
    log: str = _option("", f"Also write each epoch to {', '.join(LOGS)}; with commas.", STUDY)

    jobs: int | None = _option(
        None, "Runs side by side, one thread each.", MACHINES, show_default="one per core"
    )
    cluster: str | None = _option(
        None,
        "Train by Dask: tcp://HOST:PORT, a scheduler's file, or local[:WORKERS].",
        MACHINES,
        show_default=False,
    )

    devices: int = _option(1, "How many share each batch, in one run.", MACHINES)
    strategy: str = _option(
        "ddp", f"Of torch on several devices: {', '.join(STRATEGIES)}.", MACHINES
    )
    batch_norm: str = _option(
        "global", "Over several devices: over the whole batch, or local.", MACHINES
    )

    def place(self) -> Place:
        """Where the runs are trained; UserError if that is no place."""
        return place_of(self.jobs, self.cluster, self.engine().devices)

    def engine(self) -> Engine:
        """What the runs compute in; UserError if a name is unknown or it is not installed."""
        return choose_engine(
            self.framework,
            self.device,
            self.precision,
            self.compiled,
            devices=processes.devices(self.devices, self.framework),
            strategy=self.strategy,
            batch_norm=self.batch_norm,
        )

    def source(self) -> Source:
        """Where the images come from."""
        path = None if self.path is None else self.path.absolute()
        return Source(self.data, path, self.validation, self.augment)

    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds; UserError if they are none."""
        try:
            given = tuple(int(part) for part in self.seeds.split(",") if part.strip())
        except ValueError:
            given = ()
        seeds = given if "," in self.seeds else tuple(range(*given))
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise UserError(
                "--seeds must be how many, at least 1, or different ones with commas, from 0 on, "
                f"got {self.seeds!r}"
            )
        return seeds

    def logs(self) -> tuple[str, ...]:
        """What --log names; UserError if there is no such log."""
        names = tuple(name.strip() for name in self.log.split(",") if name.strip())
        check_logs(names)
        return names

    def load(self) -> Dataset:
        """The images; UserError as of `sources.load`, and first for what no data are needed for."""
        self.engine(), self.chosen_seeds(), self.logs()
        data = self.source().load(download=self.download)
        if self.skip_broken:
            data = self._without_broken(data)
        for note in data.notes:
            console.say(f"Note: {data.name}: {note}.")
        return data

    def _without_broken(self, data: Dataset) -> Dataset:
        if data.root is None:
            raise UserError(f"--skip-broken is for folders of images, got {data.name}")
        names = np.concatenate([data.x_train, data.x_test])
        skip = tuple(sorted(name for name, _ in broken(data.root, names)))
        console.say(f"{len(skip)} of {len(names)} images cannot be read and are left out.")
        return replace(self.source(), skip=skip).load() if skip else data

    def adaloss(self, num_losses: int) -> AdaLoss:
        """AdaLoss as asked for; ValueError if a hyperparameter is out of its range."""
        given = {f.name: getattr(self, f.name) for f in of_panel(ADALOSS)}
        return AdaLoss(num_losses, **{k: v for k, v in given.items() if v is not None})


def of_panel(panel: str) -> list[Field[Any]]:
    """The options that the help shows together."""
    return [f for f in fields(Options) if f.metadata["panel"] == panel]
