"""What `loss-balance eann` leaves behind: summary.json, eann.png, eann.html, and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import loss_balance
from loss_balance import eann
from loss_balance.experiments.pages import ensemble_plot
from loss_balance.experiments.pages.ensemble_tables import (
    COST,
    COST_HEADING,
    ORDER,
    Measurement,
    budget_headings,
    by_budget,
    costs,
    findings,
    heading,
    order,
)
from loss_balance.experiments.pages.exhibit import Exhibit, TextTable, as_csv
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.pages.style import drawings, sheet
from loss_balance.experiments.studies.ensemble import UNITS, Combined, Predictor
from loss_balance.experiments.training.run_folder import write_atomically, write_json


def exhibit(seeds: Sequence[Combined], setting: Measurement) -> Exhibit:
    """The tables, findings and curves of the ensembles.

    Args:
        seeds: what each seed's runs give; errors by budget are of all, the rest is of the first.
        setting: what was measured on.
    """
    combined, several = seeds[0], len(seeds) > 1
    orders = (TextTable(heading(each), ORDER, order(each)) for each in combined.ensembles)
    title = f"Test error on {setting.data}, %, by budget in multiply-adds"
    panels = ensemble_plot.panels(seeds)
    by_cost = TextTable(title, budget_headings(combined), by_budget(seeds), "EANN, adaloss")
    notes = ["OPT is one ordinary network per budget, trained for its end alone."] * bool(
        combined.opt
    )
    if several:
        notes.append(
            f"Errors by budget are means over {len(seeds)} seeds ± their standard deviation; "
            "order and costs are of the first, and so are the thick curves."
        )
    return Exhibit(
        title=f"Exponential ensembles on {setting.data}",
        tables=(*orders, TextTable(COST_HEADING, COST, costs(combined)), by_cost),
        notes=tuple(notes),
        findings=tuple(findings(seeds, setting)),
        picture=sheet(panels),
        drawings=drawings(panels),
        numbers=as_csv(_numbers(seeds)),
    )


def write(
    folder: Path, seeds: Sequence[Combined], shown: Exhibit, setting: Measurement
) -> dict[str, Any]:
    """Writes summary.json, eann.png and eann.html into `folder`; returns the summary."""
    summary = {
        "version": loss_balance.__version__,
        "setting": asdict(setting),
        **_seed(seeds[0]),
        "other_seeds": [_seed(combined) for combined in seeds[1:]],
        "findings": list(shown.findings),
    }
    runs = [network.run for combined in seeds for network in combined.networks]
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "eann.png", shown.picture)
    write_atomically(folder / "eann.html", render("ensemble.html.j2", exhibit=shown, runs=runs))
    return summary


def _seed(combined: Combined) -> dict[str, Any]:
    return {
        "networks": [asdict(network) for network in combined.networks],
        "curves": {curve.name: _curve(combined, curve) for curve in combined.curves},
        "linear_has_networks_of_its_own": combined.linear_is_new,
    }


def _numbers(seeds: Sequence[Combined]) -> Iterator[tuple[object, ...]]:
    """All points of the pictures, of every seed."""
    yield ("seed", "curve", "kind", "unit", "cost", "test_error")
    for number, combined in enumerate(seeds, 1):
        for curve in combined.curves:
            for unit in UNITS:
                for cost, error in zip(*ensemble_plot.points(combined, curve, unit), strict=True):
                    yield (number, curve.name, curve.kind, unit, cost, error)


def _curve(combined: Combined, curve: Predictor) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": curve.kind, "runs": [member.run for member in curve.members]}
    for unit in UNITS:
        found[unit] = {
            "answers": [asdict(answer) for answer in curve.answers(unit)],
            "total": curve.total(unit),
            "mean_test_error": combined.mean_error(curve, unit),
        }
        if curve.kind == "eann":
            found[unit]["cost_inflation"] = combined.inflation(curve, unit)._asdict()
    if curve.kind == "eann":
        theory = eann.cost_inflation(curve.base)
        found |= {"ratios": curve.ratios, "base": curve.base, "theory": theory._asdict()}
    return found
