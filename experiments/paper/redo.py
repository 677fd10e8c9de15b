"""`loss-balance paper`: the runs behind a figure or table, trained once, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
from rich.console import Console

from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.style import STYLE
from loss_balance.experiments.paper import fig2a, fig4, fig5a, fig5c, tables
from loss_balance.experiments.paper.exhibit import Exhibit, show, write
from loss_balance.experiments.paper.settings import setting
from loss_balance.experiments.runs.pool import Pool, TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.plan import Options, plan
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.loop import Run

console = Console()


@dataclass(frozen=True)
class Request:
    """What the user asked for; None is the scale's own."""

    scale: str
    engine: Engine
    networks: tuple[str, ...] | None = None
    data: tuple[str, ...] | None = None
    path: Path | None = None
    download: bool = False
    validation: bool = False
    augment: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seeds: int = 1
    gamma: float = 0.05
    decay: float = 0.99
    final_weight: float | None = None


@dataclass(frozen=True)
class Study:
    """How a figure or table is made of comparisons: one per data set and network, in that order."""

    schemes: tuple[str, ...]
    runs: Callable[[Sequence[Comparison]], list[Run]]
    exhibit: Callable[[Sequence[Comparison], TrainedRuns], Exhibit]
    validation: bool = False  # always hold some training images out


STUDIES = {
    "fig2a": Study(("const", "half-end", "adaloss"), fig2a.runs_2a, fig2a.fig2a),
    "fig4": Study(("const", "adaloss"), fig4.runs_4, fig4.fig4),
    "fig5a": Study(("adaloss", "const", "opt"), fig5a.runs_5a, fig5a.fig5a, validation=True),
    "fig5c": Study(("adaloss",), fig5c.runs_5c, fig5c.fig5c),
    "table3a": Study(("const", "linear", "adaloss", "opt"), tables.all_runs, tables.table3a),
    "table3b": Study(("const", "adaloss"), tables.all_runs, tables.table3b),
}


def redo(name: str, request: Request, out: Path, jobs: int) -> bool:
    """Trains what no command has trained yet, shows and writes; False if Ctrl-C ended it.

    The runs are kept in `out / "runs"`, for all figures and tables.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    study = STUDIES[name]
    request = replace(request, validation=request.validation or study.validation)
    comparisons = prepare(name, request, study.schemes)
    images = {comparison.source: comparison.images for comparison in comparisons}
    try:
        runs = Pool(out / "runs").train(study.runs(comparisons), jobs, images, console)
    except KeyboardInterrupt:
        console.print(f"Interrupted. {out} has all that is needed: the same command goes on.")
        return False
    with mpl.rc_context(STYLE):
        exhibit = study.exhibit(comparisons, runs)
        files = write(exhibit, runs.values(), out)
    show(exhibit, console)
    console.print("Written:", *files, soft_wrap=True, highlight=False)
    return True


def prepare(name: str, request: Request, schemes: tuple[str, ...]) -> list[Comparison]:
    """A comparison per data set and network; of a pair "small:large" one for each of the two.

    Raises:
        UserError: they do not fit each other.
    """
    chosen = setting(name, request.scale)
    networks = chosen.networks if request.networks is None else request.networks
    if (name == "fig4") != all(network.count(":") == 1 for network in networks) or not networks:
        rule = "pairs small:large" if name == "fig4" else "names"
        raise UserError(f"--networks of {name} must be {rule}, got {', '.join(networks) or 'none'}")
    comparisons = []
    for source in _sources(request, chosen.data):
        data = source.load(download=request.download)
        for network in (part for pair in networks for part in pair.split(":")):
            options = Options(
                engine=request.engine,
                source=source,
                network=network,
                schemes=schemes,
                epochs=chosen.epochs if request.epochs is None else request.epochs,
                learning_rate=request.learning_rate,
                batch_size=request.batch_size,
                seeds=request.seeds,
                gamma=request.gamma,
                decay=request.decay,
                final_weight=_final_weight(request, chosen.final_weight, source),
            )
            comparisons.append(plan(options, data))
    return comparisons


def _sources(request: Request, usual: tuple[str, ...]) -> list[Source]:
    """The data sets; the path is absolute, for the runs are shared whatever folder one is in."""
    path = None if request.path is None else request.path.absolute()
    names = usual if request.data is None else request.data
    if not names:
        raise UserError("--data must name at least one data set")
    return [Source(name, path, request.validation, request.augment) for name in names]


def _final_weight(request: Request, usual: float, source: Source) -> float:
    if request.final_weight is not None:
        return request.final_weight
    return 2.0 if source.name == "imagefolder" else usual
