"""The options that several commands share, each with its help in one place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.sources import NAMES
from loss_balance.experiments.training.engine import FRAMEWORKS
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.experiments.training.schemes import SCHEMES

TRAINING, ADALOSS, OUTPUT = "Training", "AdaLoss", "Output"


def _per_data(name: str) -> str:
    """The default of a recipe's field: the usual one, and the data sets with another."""
    values = {data: getattr(recipe, name) for data, recipe in RECIPES.items()}
    usual = Counter(values.values()).most_common(1)[0][0]
    each = ", ".join(f"{data} {value}" for data, value in values.items() if value != usual)
    return f"Default: {usual}; {each}."


def names(text: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


Backend = Annotated[str, typer.Option(help=f"Framework to train in: {', '.join(FRAMEWORKS)}.")]
Data = Annotated[str, typer.Option(help=f"Data set: {', '.join(NAMES)}.")]
DataPath = Annotated[
    Path | None,
    typer.Option(
        help="Where its files are. An npz has x_train, y_train, x_test, y_test; images "
        "(N, H, W, C).",
        show_default=False,
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch what is missing at --path.")]
Validation = Annotated[
    bool,
    typer.Option(
        "--validation", help="Test on the last tenth of the training images, 5,000 at most."
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        help=f"What happens to training images: {', '.join(AUGMENTATIONS)}.",
        show_default="the data set's own way",
    ),
]
Network = Annotated[str, typer.Option(help="A name as `loss-balance models` lists them.")]
Schemes = Annotated[str, typer.Option(help=f"Any of {', '.join(SCHEMES)}; with commas.")]
Epochs = Annotated[int | None, typer.Option(help=_per_data("epochs"), rich_help_panel=TRAINING)]
LearningRate = Annotated[
    float | None, typer.Option(help=_per_data("learning_rate"), rich_help_panel=TRAINING)
]
BatchSize = Annotated[
    int | None, typer.Option(help=_per_data("batch_size"), rich_help_panel=TRAINING)
]
Seeds = Annotated[
    int, typer.Option(help="Runs per scheme: seeds 0, 1, ...", rich_help_panel=TRAINING)
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Runs side by side, one thread each.",
        show_default="one per core",
        rich_help_panel=TRAINING,
    ),
]
Device = Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=TRAINING)]
Precision = Annotated[
    str | None,
    typer.Option(
        help="float32 or bfloat16.", show_default="bfloat16 on cuda", rich_help_panel=TRAINING
    ),
]
Compiled = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the training step (torch, and XLA for tensorflow).",
        show_default="on cuda",
        rich_help_panel=TRAINING,
    ),
]
Gamma = Annotated[float, typer.Option(help="Share of constant weights.", rich_help_panel=ADALOSS)]
Decay = Annotated[
    float, typer.Option(help="Of the running means, below 1.", rich_help_panel=ADALOSS)
]
FinalWeight = Annotated[
    float, typer.Option(help="Factor for the last exit.", rich_help_panel=ADALOSS)
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
