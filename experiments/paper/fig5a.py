"""Figure 5a of the paper: ensembles of networks trained with AdaLoss and with constant weights."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages import ensemble_plot, ensemble_tables
from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.style import MILLION, legend_below
from loss_balance.experiments.paper.common import number, panel, subject
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import FIG_5A
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.ensemble import Combined, Predictor, combine
from loss_balance.experiments.studies.ensemble_runs import measure
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.schemes import OPT

REPEATS = 1  # of the times that an ensemble is measured with, of which the figure shows none
EARLY = 0.25  # of the ensemble's cost


def runs_5a(comparisons: Sequence[Comparison]) -> list[Run]:
    """Each network with each scheme, and OPT at four costs of the largest network."""
    if len({c.source.name for c in comparisons}) > 1 or len(comparisons) < 2:
        raise UserError("fig5a takes two or more networks and one data set")
    if len(comparisons[0].seeds) > 1:
        raise UserError("fig5a takes one seed: an ensemble has each network once")
    (seed,) = comparisons[0].seeds
    largest = max(comparisons, key=lambda c: c.spec.costs()[-1].multiply_adds)
    shared = [c.run(name, seed) for c in comparisons for name in c.shared]
    return shared + [largest.run(OPT, seed, cut) for cut in largest.cuts]


def fig5a(comparisons: Sequence[Comparison], trained: TrainedRuns) -> Exhibit:
    """Test error by budget, as `loss-balance eann` finds it."""
    runs = [trained[run] for run in runs_5a(comparisons)]
    combined = combine(measure(runs, REPEATS))
    columns = [text.partition("\n")[0] for text in ensemble_tables.budget_headings(combined)]
    total = combined.ensembles[0].total("multiply_adds") / MILLION
    return exhibit(
        (
            f"Test error, %, at shares of the ensemble's {total:.2f} million multiply-adds: "
            f"{subject(comparisons)}"
        ),
        columns,
        ensemble_tables.by_budget([combined]),
        paper=FIG_5A,
        findings=_findings(combined),
        figure=_figure(combined),
    )


def _findings(combined: Combined) -> list[str]:
    """The text's three observations, each with what was measured here."""
    ensembles = {curve.members[0].scheme: curve for curve in combined.ensembles}
    ensemble = ensembles["adaloss"]
    single = next(c for c in combined.singles if c.members[0] is ensemble.members[-1])
    early = EARLY * ensemble.total("multiply_adds")
    error, alone = (_percent(combined.error_at(c, early, "multiply_adds")) for c in
                    (ensemble, single))  # fmt: skip
    mean = {name: _mean(combined, curve) for name, curve in ensembles.items()}
    lines = [
        f"At a quarter of its cost the ensemble with AdaLoss errs {number(error, 1)} %, its "
        f"largest network alone {number(alone, 1)} %.",
        f"Mean over budgets: the ensemble with AdaLoss errs {number(mean['adaloss'], 1)} %, with "
        f"constant weights {number(mean['const'], 1)} %, the largest network alone with AdaLoss "
        f"{number(_mean(combined, single), 1)} %.",
    ]
    if combined.opt is not None:
        lines.append(f"OPT, one network per budget, {number(_mean(combined, combined.opt), 1)} %.")
    return [*lines, "One seed: how much of this is chance is not known."]


def _mean(combined: Combined, curve: Predictor) -> float:
    return _percent(combined.mean_error(curve, "multiply_adds"))


def _percent(error: float | None) -> float:
    return float("nan") if error is None else 100 * error


def _figure(combined: Combined) -> Figure:
    """Budget across, test error up, both in logarithms, a line per predictor."""
    figure, axes = panel("Fig. 5a", "", "test error, %", size=(6.2, 4.6))
    ensemble_plot.panel(axes, combined, "multiply_adds")
    legend_below(axes)
    return figure
