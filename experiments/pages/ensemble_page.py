"""What `loss-balance eann` leaves behind: summary.json, eann.png, eann.html, and the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import loss_balance
from loss_balance import eann
from loss_balance.experiments.pages import ensemble_plot
from loss_balance.experiments.pages.exhibit import Exhibit, TextTable, as_csv
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.pages.style import drawings, sheet
from loss_balance.experiments.studies.ensemble import UNITS, Combined, Predictor, Unit
from loss_balance.experiments.training.run_folder import write_atomically, write_json

SHARES = {"1/8": 0.125, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0}  # of the ensemble's cost
Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Measurement:
    """What was measured on."""

    data: str
    framework: str
    repeats: int  # of each time, whose median counts


def exhibit(combined: Combined, setting: Measurement) -> Exhibit:
    """The tables, findings and curves of the ensembles."""
    orders = (TextTable(heading(each), ORDER, order(each)) for each in combined.ensembles)
    title = f"Test error on {setting.data}, %, by budget in multiply-adds"
    panels = ensemble_plot.panels(combined)
    by_cost = TextTable(title, budget_headings(combined), by_budget(combined), "EANN, adaloss")
    return Exhibit(
        title=f"Exponential ensembles on {setting.data}",
        tables=(*orders, TextTable(COST_HEADING, COST, costs(combined)), by_cost),
        notes=("OPT is one ordinary network per budget, trained for its end alone.",)
        if combined.opt
        else (),
        findings=tuple(findings(combined, setting)),
        picture=sheet(panels),
        drawings=drawings(panels),
        numbers=as_csv(_numbers(combined)),
    )


def write(folder: Path, combined: Combined, shown: Exhibit, setting: Measurement) -> dict[str, Any]:
    """Writes summary.json, eann.png and eann.html into `folder`; returns the summary."""
    summary = {
        "version": loss_balance.__version__,
        "setting": asdict(setting),
        "networks": [asdict(network) for network in combined.networks],
        "curves": {curve.name: _curve(combined, curve) for curve in combined.curves},
        "linear_has_networks_of_its_own": combined.linear_is_new,
        "findings": list(shown.findings),
    }
    runs = [network.run for network in combined.networks]
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "eann.png", shown.picture)
    write_atomically(folder / "eann.html", render("ensemble.html.j2", exhibit=shown, runs=runs))
    return summary


def _numbers(combined: Combined) -> Iterator[tuple[object, ...]]:
    """All points of the pictures."""
    yield ("curve", "kind", "unit", "cost", "test_error")
    for curve in combined.curves:
        for unit in UNITS:
            for cost, error in zip(*ensemble_plot.points(combined, curve, unit), strict=True):
                yield (curve.name, curve.kind, unit, cost, error)


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


ORDER = ("network", "from M", "to M", "to ms", "exits used", "validation", "test")


def order(ensemble: Predictor) -> Rows:
    """A row per member, in the order they run; errors are those of its last used answer."""
    rows, spent = [], dict.fromkeys(UNITS, 0.0)
    answers = ensemble.answers("multiply_adds")
    for i, member in enumerate(ensemble.members):
        used = [answer for answer in answers if answer.member == i]
        errors = (used[-1].validation_error, used[-1].test_error) if used else ()
        start = spent["multiply_adds"]
        spent = {unit: spent[unit] + member.costs(unit)[-1] for unit in UNITS}
        rows.append(
            (
                member.network,
                f"{start / 1e6:.3f}",
                f"{spent['multiply_adds'] / 1e6:.3f}",
                f"{spent['milliseconds']:.2f}",
                f"{_ranges([answer.exit for answer in used])} of {len(member.test_error)}",
                *(tuple(f"{100 * error:.1f} %" for error in errors) or ("", "")),
            )
        )
    return tuple(rows)


def heading(ensemble: Predictor) -> str:
    """The title of the table of `order`."""
    return f"{ensemble.name}: the order (M: million multiply-adds since the start)"


def _ranges(exits: list[int]) -> str:
    """Exits counted from 1: [0, 1, 2, 5] is 1-3, 6."""
    parts: list[list[int]] = []
    for exit_ in exits:
        if parts and parts[-1][-1] == exit_ - 1:
            parts[-1].append(exit_)
        else:
            parts.append([exit_])
    return (
        ", ".join(f"{p[0] + 1}-{p[-1] + 1}" if len(p) > 1 else f"{p[0] + 1}" for p in parts)
        or "none"
    )


COST = ("ensemble", "unit", "total", "of largest", "worst", "mean", "theory, worst", "mean")
COST_HEADING = "Total cost, and cost inflation as measured and in theory"


def costs(combined: Combined) -> Rows:
    """Total cost and cost inflation of each exponential ensemble, in both units."""
    rows = []
    for ensemble in combined.ensembles:
        theory = eann.cost_inflation(ensemble.base)
        for unit in UNITS:
            total, measured = ensemble.total(unit), combined.inflation(ensemble, unit)
            rows.append(
                (
                    ensemble.name,
                    "M" if unit == "multiply_adds" else "ms",
                    f"{total / 1e6:.3f}" if unit == "multiply_adds" else f"{total:.2f}",
                    f"{total / ensemble.members[-1].costs(unit)[-1]:.2f}x",
                    f"{measured.worst:.2f}",
                    f"{measured.mean:.2f}",
                    f"{theory.worst:.2f}",
                    f"{theory.mean:.2f}",
                )
            )
    return tuple(rows)


def budget_headings(combined: Combined) -> tuple[str, ...]:
    """Budgets are shares of the first ensemble's total; the mean is over `Combined.span`."""
    total = combined.ensembles[0].total("multiply_adds")
    at = [f"{name}\n{share * total / 1e6:.2f} M" for name, share in SHARES.items()]
    return ("predictor", *at, "mean")


def by_budget(combined: Combined) -> Rows:
    """A row per curve."""
    unit: Unit = "multiply_adds"
    total = combined.ensembles[0].total(unit)
    rows = []
    for curve in combined.curves:
        errors = [combined.error_at(curve, share * total, unit) for share in SHARES.values()]
        errors.append(combined.mean_error(curve, unit))
        cells = ["" if error is None else f"{100 * error:.1f}" for error in errors]
        rows.append((curve.name, *cells))
    return tuple(rows)


def findings(combined: Combined, setting: Measurement) -> list[str]:
    """What the numbers say, in words, and what they do not."""
    best, *others = combined.ensembles
    lines = [_against(combined, best, other) for other in others]
    largest = next(curve for curve in combined.singles if curve.members[0] is best.members[-1])
    lines += [_against(combined, best, largest), _against(combined, best, combined.linear)]
    theory = eann.cost_inflation(best.base)
    lines.append(
        "Inflation is the cost by which an ensemble first errs as little over that of the cheapest "
        f"single network that does. Costs grow by {', '.join(f'{r:.2f}' for r in best.ratios)}; in "
        f"theory {best.base:.2f} each time costs at most {theory.worst:.2f} times as much, "
        f"{theory.mean:.2f} times on average."
    )
    lines.append(_linear(combined))
    lines.append(
        "Answers are used if their error on held-out training images (validation) is below all "
        "before; what is compared is the error on the test images."
    )
    lines.append(
        f"Milliseconds: one image in {setting.framework}, on this machine, in one thread, median "
        f"of {setting.repeats} runs. One seed: how much of this is chance is not known."
    )
    return lines


def _against(combined: Combined, curve: Predictor, other: Predictor) -> str:
    parts = []
    for unit, name in zip(UNITS, ("multiply-adds", "milliseconds"), strict=True):
        ours, theirs = combined.mean_error(curve, unit), combined.mean_error(other, unit)
        if ours is not None and theirs is not None:
            parts.append(f"{100 * (ours - theirs):+.1f} points over budgets in {name}")
    found = ", ".join(parts) or "no budgets in common"
    return f"Mean test error of {curve.name} against {other.name}: {found}."


def _linear(combined: Combined) -> str:
    members = combined.linear.members
    names = ", ".join(member.network for member in members)
    if combined.linear_is_new:
        return (
            "The linear ensemble is made of OPT's networks, each trained for its end alone: "
            f"{names}."
        )
    return (
        "No ordinary networks are among the runs, so the linear ensemble is made of the last exits "
        f"of the anytime ones, as far as their costs allow: {names}. Train with --schemes that "
        "include opt for a fair one."
    )
