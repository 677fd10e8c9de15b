"""`loss-balance paper`: the runs behind a figure or table, trained once, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.exhibit import Exhibit, show
from loss_balance.experiments.pages.style import STYLE
from loss_balance.experiments.paper import fig2a, fig4, fig5a, fig5c, tables
from loss_balance.experiments.paper.exhibit import write
from loss_balance.experiments.paper.settings import Setting, setting
from loss_balance.experiments.runs.pool import Pool, TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.options import Options
from loss_balance.experiments.studies.plan import check, plan
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run


@dataclass(frozen=True)
class Request:
    """What the user asked for; None is the scale's own."""

    options: Options  # `data` aside, which is one set after the other
    scale: str
    networks: tuple[str, ...] | None = None
    data: tuple[str, ...] | None = None
    beyond: bool = False  # also what the paper does not have


@dataclass(frozen=True)
class Study:
    """How a figure or table is made of comparisons: one per data set and network, in that order."""

    schemes: tuple[str, ...]
    runs: Callable[[Sequence[Comparison]], list[Run]]
    exhibit: Callable[[Sequence[Comparison], TrainedRuns], Exhibit]
    validation: bool = False  # always hold some training images out
    beyond: tuple[str, ...] = ()  # schemes that the paper does not have


BEYOND = ("equilibrium", "guided")
STUDIES = {
    "fig2a": Study(("const", "half-end", "adaloss"), fig2a.runs_2a, fig2a.fig2a, beyond=BEYOND),
    "fig4": Study(("const", "adaloss"), fig4.runs_4, fig4.fig4),
    "fig5a": Study(
        ("adaloss", "const", "opt"), fig5a.runs_5a, fig5a.fig5a, validation=True, beyond=BEYOND
    ),
    "fig5c": Study(("adaloss",), fig5c.runs_5c, fig5c.fig5c),
    "table3a": Study(
        ("const", "linear", "adaloss", "opt"), tables.all_runs, tables.table3a, beyond=BEYOND
    ),
    "table3b": Study(("const", "adaloss"), tables.all_runs, tables.table3b, beyond=BEYOND),
}


def redo(name: str, request: Request, out: Path) -> bool:
    """Trains what no command has trained yet, shows and writes; False if Ctrl-C ended it.

    The runs are kept in `out / "runs"`, for all figures and tables.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    study, place = STUDIES[name], request.options.place()
    if study.validation:
        request = replace(request, options=replace(request.options, validation=True))
    if request.beyond and not study.beyond:
        raise UserError(f"--beyond is for {', '.join(k for k, s in STUDIES.items() if s.beyond)}")
    schemes = study.schemes + study.beyond * request.beyond
    comparisons = prepare(name, request, schemes)
    images = {comparison.source: comparison.images for comparison in comparisons}
    try:
        runs = Pool(out / "runs").train(study.runs(comparisons), place, images)
    except KeyboardInterrupt:
        console.say(f"Interrupted. {out} has all that is needed: the same command goes on.")
        return False
    with mpl.rc_context(STYLE):
        exhibit = study.exhibit(comparisons, runs)
    files = write(name, exhibit, runs.values(), out)
    show(exhibit)
    console.say(f"Written: {' '.join(map(str, files))}")
    console.found(_as_json(exhibit, files))
    return True


def _as_json(exhibit: Exhibit, files: Sequence[Path]) -> dict[str, Any]:
    (table,) = exhibit.tables
    return {
        "title": exhibit.title,
        "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "findings": list(exhibit.findings),
        "files": [str(file) for file in files],
    }


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
    for options in _options_of(request, chosen):
        for network in (part for pair in networks for part in pair.split(":")):
            check(options, network, schemes)
        data = options.load()
        for network in (part for pair in networks for part in pair.split(":")):
            comparisons.append(plan(options, network, schemes, data))
    return comparisons


def _options_of(request: Request, usual: Setting) -> list[Options]:
    """The options for each data set; what was not said is as the scale has it.

    The path is absolute, for the runs are shared whatever folder one is in.
    """
    given = request.options
    names = usual.data if request.data is None else request.data
    if not names:
        raise UserError("--data must name at least one data set")
    path = None if given.path is None else given.path.absolute()
    epochs = usual.epochs if given.epochs is None else given.epochs
    final = {name: 2.0 if name == "imagefolder" else usual.final_weight for name in names}
    return [
        replace(
            given,
            data=name,
            path=path,
            epochs=epochs,
            final_weight=final[name] if given.final_weight is None else given.final_weight,
        )
        for name in names
    ]
