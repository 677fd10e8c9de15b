"""`loss-balance report`: any finished runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS", help="Folders of finished runs, or folders with such."),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("runs/report.html"),
) -> None:
    """Merge finished runs of any command into one self-contained HTML page.

    Table, curves, loss weights over time, and configurations; nothing is trained.
    """
    from loss_balance.experiments.pages import runs_page  # matplotlib: not for --help

    runs_page.write(runs, out)
