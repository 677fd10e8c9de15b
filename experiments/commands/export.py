"""`loss-balance export`: a finished run as files for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.deployment.exporting import TARGETS, export_run
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.terminal import console
from loss_balance.reference_models.exports import Written


@opts.shows()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    to: Annotated[str, typer.Option(help=f"Format: {', '.join(TARGETS)}.")] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            help="Folder of the files.",
            show_default="export-FORMAT in the run's folder",
            rich_help_panel=opts.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Discard the export in --output.", rich_help_panel=opts.OUTPUT
        ),
    ] = False,
) -> None:
    """Write a trained run as ONNX, torch.export, SavedModel or jax.export, and check it.

    A file for each exit and for each segment between exits. A run of any framework goes into any
    format; the framework that writes it must be installed: PyTorch for onnx and torch.

    Every file is run and compared with the network before the folder is there.
    """
    if to not in TARGETS:
        raise UserError(f"--to must be one of {', '.join(TARGETS)}, got {to!r}")
    folder = run / f"export-{to}" if output is None else output
    trained = read(run)
    with console.working(f"exporting {trained.spec.name} to {to}"):
        written = export_run(trained, to, folder, overwrite=overwrite)
    show(trained, written, to)


def show(run: Trained, written: Written, to: str) -> None:
    """A row per file, and how far they are from the network."""
    console.say(f"{run.spec.name}, {run.scheme}, to {to}")
    table = Table()
    table.add_column("file")
    table.add_column("kB", justify="right")
    for name, size in written.sizes.items():
        table.add_row(name, f"{size / 1000:,.1f}")
    console.print(table)
    console.say(
        f"Checked with another batch size: at most {written.difference:.1e} of the largest logit "
        "from the network."
    )
    console.say(f"Export: {written.folder}")
    console.found(
        {
            "run": str(run.folder),
            "format": to,
            "folder": str(written.folder),
            "bytes": written.sizes,
            "difference": written.difference,
        }
    )
