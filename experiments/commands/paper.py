"""`loss-balance paper FIGURE`: a figure or table of the paper redone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.paper.settings import SCALES
from loss_balance.experiments.studies.options import Options

app: typer.Typer = typer.Typer(
    no_args_is_help=True,
    help="Redo a figure or table of the paper, from digits to the paper's own setting.",
)

Scale = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(SCALES)}: seconds, minutes, or the paper's networks, data and recipe."
    ),
]
Networks = Annotated[
    str | None,
    typer.Option(
        help="Names as `loss-balance models` lists them, with commas; for fig4a to fig4e pairs "
        "small:large, for fig5b first small:middle:large.",
        show_default="the scale's",
    ),
]
DataSets = Annotated[
    str | None,
    typer.Option(help="Names of data sets, with commas.", show_default="the scale's"),
]
Beyond = Annotated[
    bool,
    typer.Option(
        "--beyond",
        help="Also equilibrium and guided, which the paper does not have (all but fig5c).",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="As these always do.", rich_help_panel=opts.OUTPUT),
]
FINAL_WEIGHT: dict[str, Any] = {
    "default": None,
    "show_default": "1; 2 for fig4d, fig4e, fig5b, table3b and imagefolder",
}
Out = Annotated[
    Path,
    typer.Option(
        help="Folder for CSV and plots, and for the runs that all figures and tables share.",
        rich_help_panel=opts.OUTPUT,
    ),
]


def _redo(name: str, summary: str, hidden: bool = False) -> None:
    """Adds the command; its options are the same for all of them."""

    @opts.shows()
    @opts.takes_options(without=["data", "sweep", "log"], joins=False, final_weight=FINAL_WEIGHT)
    def command(
        options: Options,
        scale: Scale = "small",
        networks: Networks = None,
        data: DataSets = None,
        beyond: Beyond = False,
        resume: Resume = False,  # noqa: ARG001 (for the same habit in all commands)
        out: Out = Path("runs/paper"),
    ) -> None:
        from loss_balance.experiments.paper.redo import Request, redo  # a second for matplotlib

        request = Request(
            options,
            scale,
            networks=None if networks is None else opts.names(networks),
            data=None if data is None else opts.names(data),
            beyond=beyond,
        )
        if not redo(name, request, out):
            raise typer.Exit(130)

    command.__doc__ = summary
    app.command(name, hidden=hidden)(command)


_redo(
    "fig2a",
    """Training loss over OPT's at each depth: const, half-end and AdaLoss (Fig. 2a).

    OPT is one network per depth, trained for that exit alone.
    """,
)
PAIRS = "Small networks with AdaLoss against large ones with constant weights"
_redo("fig4", f"{PAIRS}: what is now called fig4b.", hidden=True)
_redo("fig4a", f"{PAIRS}: ResANNs on CIFAR-10 (Fig. 4a).")
_redo("fig4b", f"{PAIRS}: ResANNs on CIFAR-100 (Fig. 4b).")
_redo("fig4c", f"{PAIRS}: ResANNs on SVHN (Fig. 4c).")
_redo("fig4d", f"{PAIRS}: ResANN50 and ResANN101 on ILSVRC (Fig. 4d).")
_redo("fig4e", f"{PAIRS}: MSDNet32 and MSDNet38 on ILSVRC (Fig. 4e).")
_redo(
    "fig5a",
    """Ensembles of growing networks, of AdaLoss and of constant weights, and OPT (Fig. 5a).

    A tenth of the training images, 5,000 at most, chooses which answers are used.
    """,
)
_redo(
    "fig5b",
    """An ensemble against linear ones of ResNets and of DenseNets, and MSDNet (Fig. 5b).

    A tenth of the training images, 5,000 at most, chooses which answers are used. --networks: first
    the ensemble's as small:middle:large; then, likewise, each linear ensemble's, of which the last
    exit alone is trained; a single name is an anytime network with constant weights.
    """,
)
_redo("fig5c", "AdaLoss's final weights of one network on several data sets (Fig. 5c).")
_redo(
    "table3a",
    "Test error over OPT's at 1/4, 1/2, 3/4 and 1 of the cost, averaged (Table 3a).",
)
_redo(
    "table3b",
    "Test error at 1/4, 1/2, 3/4 and 1 of the cost, several families (Table 3b, Fig. 4f).",
)
