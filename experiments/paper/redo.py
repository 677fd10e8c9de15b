"""`loss-balance paper`: the runs behind a figure or table, trained once, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.exhibit import Exhibit, show
from loss_balance.experiments.pages.style import STYLE
from loss_balance.experiments.paper import fig2a, fig4, fig5a, fig5b, fig5c, tables
from loss_balance.experiments.paper.common import Group, alone, flat
from loss_balance.experiments.paper.exhibit import write
from loss_balance.experiments.paper.settings import Setting, setting
from loss_balance.experiments.runs.pool import Pool, TrainedRuns
from loss_balance.experiments.studies.options import Options
from loss_balance.experiments.studies.plan import check, plan
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run

# What --networks must be, as the error says it.
NAMES, PAIRS = "names", "pairs small:large"
ENSEMBLES = "names, those of an ensemble as small:large"


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
    """How a figure or table is made of comparisons: groups of them, by data set and networks."""

    schemes: tuple[str, ...]
    runs: Callable[[Sequence[Group]], list[Run]]
    exhibit: Callable[[Sequence[Group], TrainedRuns], Exhibit]
    networks: str = NAMES  # what --networks must be, of FORMS
    validation: bool = False  # always hold some training images out
    beyond: tuple[str, ...] = ()  # schemes that the paper does not have


FORMS: dict[str, Callable[[str], bool]] = {  # whether an entry is of that form
    NAMES: lambda text: ":" not in text,
    PAIRS: lambda text: text.count(":") == 1,
    ENSEMBLES: bool,  # any but an empty one
}
BEYOND = ("equilibrium", "guided")
_FIG_4 = {
    name: Study(("const", "adaloss"), fig4.runs_4, partial(fig4.fig4, name), PAIRS, beyond=BEYOND)
    for name in ("fig4", "fig4a", "fig4b", "fig4c", "fig4d", "fig4e")
}
STUDIES = {
    "fig2a": Study(
        ("const", "half-end", "adaloss"), alone(fig2a.runs_2a), alone(fig2a.fig2a), beyond=BEYOND
    ),
    **_FIG_4,
    "fig5a": Study(
        ("adaloss", "const", "opt"),
        alone(fig5a.runs_5a),
        alone(fig5a.fig5a),
        validation=True,
        beyond=BEYOND,
    ),
    "fig5b": Study(
        ("adaloss", "const"),
        fig5b.runs_5b,
        fig5b.fig5b,
        ENSEMBLES,
        validation=True,
        beyond=BEYOND,
    ),
    "fig5c": Study(("adaloss",), alone(fig5c.runs_5c), alone(fig5c.fig5c)),
    "table3a": Study(
        ("const", "linear", "adaloss", "opt"),
        alone(tables.all_runs),
        alone(tables.table3a),
        beyond=BEYOND,
    ),
    "table3b": Study(
        ("const", "adaloss"), alone(tables.all_runs), alone(tables.table3b), beyond=BEYOND
    ),
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
        without = ", ".join(each for each, study in STUDIES.items() if not study.beyond)
        raise UserError(f"--beyond is for all figures and tables but {without}, got {name}")
    schemes = study.schemes + study.beyond * request.beyond
    groups = prepare(name, request, schemes)
    images = {comparison.source: comparison.images for comparison in flat(groups)}
    try:
        runs = Pool(out / "runs").train(study.runs(groups), place, images)
    except KeyboardInterrupt:
        console.say(f"Interrupted. {out} has all that is needed: the same command goes on.")
        return False
    with mpl.rc_context(STYLE):
        exhibit = study.exhibit(groups, runs)
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


def prepare(name: str, request: Request, schemes: tuple[str, ...]) -> list[Group]:
    """A group per data set and entry of --networks, of "small:large" with a comparison for each.

    Raises:
        UserError: they do not fit each other.
    """
    chosen = setting(name, request.scale)
    networks = chosen.networks if request.networks is None else request.networks
    rule = STUDIES[name].networks
    if not networks or not all(map(FORMS[rule], networks)):
        raise UserError(f"--networks of {name} must be {rule}, got {', '.join(networks) or 'none'}")
    groups = []
    for options in _options_of(request, chosen):
        for network in (part for group in networks for part in group.split(":")):
            check(options, network, schemes)
        data = options.load()
        for group in networks:
            groups.append(tuple(plan(options, one, schemes, data) for one in group.split(":")))
    return groups


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
