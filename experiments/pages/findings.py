"""What a comparison's numbers say in words: which scheme is best where, what ours gain and pay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.studies.comparison import AT, Outcome
from loss_balance.experiments.training.schemes import OPT

LEVEL = 0.05  # of the paired t-test
TITLES = {"train_loss": "training loss", "test_error": "test error"}
OURS = {"adaloss": "AdaLoss", "equilibrium": "equilibrium", "guided": "guided"}


def findings(measured: Outcome) -> list[str]:
    """Sentences from the numbers alone; a difference that may be chance is called no gain."""
    names = [name for name in measured.curves if name != OPT]
    ours = [name for name in OURS if name in names]
    lines = [_trade(measured)] if {"const", "adaloss"} <= set(names) else []
    if len(names) > 1:
        lines += [_best(measured, names, metric) for metric in TITLES]
    rivals = {name: next((x for x in names if x != name), None) for name in ours}
    if "const" in names:
        rivals = dict.fromkeys(ours, "const")
    for name, rival in rivals.items():
        if rival is not None:
            lines += [_against(measured, name, rival, metric) for metric in TITLES]
    if not lines:
        return []
    seeds = len(measured.comparison.seeds)
    return [
        *lines,
        "One seed: how much of this is chance is not known."
        if seeds == 1
        else f"Means over {seeds} seeds ± their standard deviation. A difference counts where a "
        f"paired t-test over the seeds has p < {LEVEL:g}, each for itself: among many, one in "
        "twenty does by chance.",
    ]


def cells(measured: Outcome, name: str, metric: str) -> list[str]:
    """A scheme's means at the fractions, with their standard deviation if there are several."""
    values, digits = _values(measured, name, metric), 1 if metric == "test_error" else 3
    text = [f"{mean:.{digits}f}" for mean in values.mean(axis=0)]
    if len(values) == 1:
        return text
    spread = values.std(axis=0, ddof=1)
    return [f"{mean} ±{sd:.{digits}f}" for mean, sd in zip(text, spread, strict=True)]


def percent(x: float) -> str:
    """A relative change as text, n/a for what has no ratio."""
    return f"{signed(100 * x, 0)} %" if np.isfinite(x) else "n/a"


def signed(x: float, digits: int) -> str:
    """The number with its sign; none where it rounds to 0."""
    text = f"{x:+.{digits}f}"
    return text if float(text) else text[1:]


def _best(measured: Outcome, names: Sequence[str], metric: str) -> str:
    """Which scheme is best at each fraction, and which comes next."""
    means = {name: _values(measured, name, metric).mean(axis=0) for name in names}
    shown = {name: cells(measured, name, metric) for name in names}
    parts = []
    for k, at in enumerate(AT):
        first, second = sorted(names, key=lambda name: float(means[name][k]))[:2]
        beyond = _beyond(measured, first, second, metric)[k]
        doubt = "" if beyond else ", which may be chance"
        parts.append(f"{first} {shown[first][k]} at {at} (then {second} {shown[second][k]}{doubt})")
    unit = ", %" if metric == "test_error" else ""
    return f"Least {TITLES[metric]}{unit}: {'; '.join(parts)}."


def _trade(measured: Outcome) -> str:
    """The paper's claim in one sentence, and whether it showed."""
    change = measured.increase("adaloss", "train_loss", "const")
    beyond = _beyond(measured, "adaloss", "const", "train_loss")
    traded = change[0] > 0 > change[-1] and beyond[0] and beyond[-1]
    return (
        f"Against constant weights AdaLoss {'traded' if traded else 'did not trade'} early exits "
        f"for late ones here: training loss {percent(change[0])} at 1/4 of the cost, "
        f"{percent(change[-1])} at the end."
    )


def _against(measured: Outcome, name: str, rival: str, metric: str) -> str:
    """One line: changes as they are printed, and where they are more than chance."""
    if metric == "test_error":
        changes = [signed(100 * x, 1) for x in measured.difference(name, metric, rival)]
        unit = " points"
    else:
        changes = [signed(100 * x, 0) for x in measured.increase(name, metric, rival)]
        unit = " %"
    beyond = _beyond(measured, name, rival, metric)
    clear = [(at, float(x)) for at, x, clear in zip(AT, changes, beyond, strict=True) if clear]
    gains, pays = [at for at, x in clear if x < 0], [at for at, x in clear if x > 0]
    lower, higher = ("gains", "pays") if len(measured.comparison.seeds) > 1 else ("lower", "higher")
    verdicts = [f"{lower} at {_and(gains)}"] * bool(gains) + [f"{higher} at {_and(pays)}"] * bool(
        pays
    )
    listed = ", ".join(f"{change}{unit} at {at}" for change, at in zip(changes, AT, strict=True))
    return (
        f"{TITLES[metric].capitalize()}, {OURS[name]} against {rival}: {listed} of the cost; "
        f"{', '.join(verdicts) or 'no clear difference'}."
    )


def _beyond(measured: Outcome, one: str, other: str, metric: str) -> NDArray[np.bool_]:
    """Where two schemes differ by more than chance; of one seed wherever they do."""
    return clearly(_values(measured, one, metric) - _values(measured, other, metric))


def clearly(differences: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the mean of paired differences (seeds, n) is not 0, by a t-test at LEVEL.

    Of one seed, and where all seeds have the same difference, whether there is any.
    """
    there: NDArray[np.bool_] = differences.mean(axis=0) != 0
    if len(differences) == 1:
        return there
    from scipy.stats import ttest_1samp  # half a second

    varies = np.ptp(differences, axis=0) > 1e-9 * np.abs(differences).max(axis=0)
    clear = there.copy()
    clear[varies] = ttest_1samp(differences[:, varies], 0.0).pvalue < LEVEL
    return clear


def _values(measured: Outcome, name: str, metric: str) -> NDArray[np.float64]:
    """Shape (seeds, 4); errors in %."""
    values: NDArray[np.float64] = measured.at_fractions(name, metric)
    return values * (100 if metric == "test_error" else 1)


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
