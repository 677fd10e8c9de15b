"""What an ensemble's numbers are as tables, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loss_balance import eann
from loss_balance.experiments.pages.findings import signed
from loss_balance.experiments.studies.ensemble import UNITS, Combined, Predictor, Unit

SHARES = {"1/8": 0.125, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0}  # of the ensemble's cost
Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Measurement:
    """What was measured on."""

    data: str
    framework: str
    repeats: int  # of each time, whose median counts


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


def by_budget(seeds: Sequence[Combined]) -> Rows:
    """A row per curve, of several seeds means ± standard deviations; empty before the first."""
    unit: Unit = "multiply_adds"
    total = seeds[0].ensembles[0].total(unit)
    rows = []
    for name in (curve.name for curve in seeds[0].curves):
        found = []
        for combined in seeds:
            curve = combined.named(name)
            errors = [combined.error_at(curve, share * total, unit) for share in SHARES.values()]
            found.append([*errors, combined.mean_error(curve, unit)])
        rows.append((name, *map(_cell, zip(*found, strict=True))))
    return tuple(rows)


def _cell(errors: Sequence[float | None]) -> str:
    known = [100 * error for error in errors if error is not None]
    if len(known) < len(errors):
        return ""
    spread = f" ±{np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{np.mean(known):.1f}{spread}"


def findings(seeds: Sequence[Combined], setting: Measurement) -> list[str]:
    """What the numbers say, in words, and what they do not."""
    combined = seeds[0]
    best, *others = combined.ensembles
    lines = [_against(seeds, best, other) for other in others]
    largest = next(curve for curve in combined.singles if curve.members[0] is best.members[-1])
    lines += [_against(seeds, best, largest), _against(seeds, best, combined.linear)]
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
        f"of {setting.repeats} runs."
        + " One seed: how much of this is chance is not known."
        * (len(seeds) == 1)
    )
    return lines


def _against(seeds: Sequence[Combined], curve: Predictor, other: Predictor) -> str:
    parts = []
    for unit, name in zip(UNITS, ("multiply-adds", "milliseconds"), strict=True):
        gaps = []
        for each in seeds:
            ours, theirs = (each.mean_error(each.named(c.name), unit) for c in (curve, other))
            if ours is not None and theirs is not None:
                gaps.append(100 * (ours - theirs))
        if len(gaps) == len(seeds):
            spread = f" ±{np.std(gaps, ddof=1):.1f}" if len(gaps) > 1 else ""
            parts.append(f"{signed(float(np.mean(gaps)), 1)}{spread} points over budgets in {name}")
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
