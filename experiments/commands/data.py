"""`loss-balance data check`: what a training would read, every image of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.data.pictures import broken
from loss_balance.experiments.data.sources import BUNDLED, NAMES, Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.terminal import console

app: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Look at a data set before it is trained on."
)


@app.callback()
def root() -> None:
    """Look at a data set before it is trained on."""


@opts.shows()
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where the data are.")],
    data: Annotated[
        str | None,
        typer.Option(help=f"Which: {', '.join(NAMES)}.", show_default="npz or imagefolder"),
    ] = None,
) -> None:
    """Read every image of a data set, and list those that cannot be read.

    Exit status 1 if there are any; --skip-broken of the training commands goes without them.
    """
    if data in BUNDLED:
        raise UserError(f"PATH must hold the data, {data} comes with scikit-learn")
    name = data or ("imagefolder" if path.is_dir() else "npz")
    found = Source(name, path).load()
    with console.working(f"reading {len(found.y_train) + len(found.y_test):,} images"):
        problems = _problems(found)
    summary = {**described(found), "broken": problems}
    for note in found.notes:
        console.say(f"Note: {note}.")
    for file, problem in problems.items():
        console.say(f"{file}: {problem}")
    console.say(
        f"{found.name}: {summary['train_images']:,} training and {summary['test_images']:,} test "
        f"images {'x'.join(map(str, found.input_shape))} of {found.num_classes} classes, "
        f"{len(problems)} cannot be read"
    )
    console.found(summary)
    if problems:
        raise typer.Exit(1)


def described(data: Dataset) -> dict[str, Any]:
    """What there is, as JSON holds it."""
    counts = np.bincount(data.y_train, minlength=data.num_classes)
    return {
        "data": data.name,
        "train_images": len(data.y_train),
        "test_images": len(data.y_test),
        "input": list(data.input_shape),
        "classes": data.num_classes,
        "images_of_class": {"least": int(counts.min()), "most": int(counts.max())},
        "notes": list(data.notes),
    }


def _problems(data: Dataset) -> dict[str, str]:
    """What is wrong with each file; arrays have been read whole."""
    if data.root is None:
        return {}
    return dict(broken(data.root, np.concatenate([data.x_train, data.x_test])))


app.command("check")(check)
