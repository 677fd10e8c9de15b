"""The study as Markdown: a table a problem, and what the numbers say, whoever wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.methods import CONSTANT
from benchmarks.quality.problems.problem import Metric, Problem
from benchmarks.quality.results import Records
from benchmarks.quality.study import SEEDS, TRIALS
from benchmarks.quality.summary import Change, apart, changes, ranks

REMARKS = Path(__file__).with_name("remarks")
INTRODUCTION = f"""# Quality on other people's problems

`python -m benchmarks.quality --images cifar10.npz` trains every method on every problem. Each
has {TRIALS} trials, of settings and learning rates, on one seed, judged on a validation part;
the best of them is trained anew from {len(SEEDS)} seeds that no trial has seen, and measured on
the test part. A method with two settings has half the learning rates of one that has none to
choose; "static weights" is what someone would try by hand in as many trials. All train with
Adam, so that the scale of the whole does not matter, and a learning rate that falls as a cosine.
Other packages' ways are called as their documentation does, with their own defaults. A method
that has not been trained on a problem yet has no row there.

Cells are means over seeds ± their standard deviation, the lower the better. "Change" is against
constant weights: the geometric mean of the ratios of all metrics, by which trials are compared too,
so that twice the error on one task and half of it on another are none. "Rank" is the mean rank over
the metrics. Two methods are told apart only where their changes differ by more than both spreads
together.
"""


def section(problems: list[Problem], every: Mapping[str, Records]) -> str:
    """The page: of the problems that there are records of.

    Args:
        problems: in the order of the page.
        every: records by problem and method.
    """
    parts = [part(one, every[one.name]) for one in problems if finished(every.get(one.name, {}))]
    return "\n".join([INTRODUCTION, *parts])


def finished(records: Records) -> Records:
    """Those of all seeds, if constant weights and something to compare are among them."""
    found = {name: one for name, one in records.items() if len(one["test"]) == len(SEEDS)}
    return found if CONSTANT in found and len(found) > 1 else {}


def part(problem: Problem, records: Records) -> str:
    """Title, table, findings and remarks of a problem."""
    records = finished(records)
    change = changes(records, CONSTANT)
    remark = REMARKS / f"{problem.name}.md"
    return "\n".join(
        [
            f"## {problem.title}\n",
            table(problem.metrics, records, change),
            "",
            *(f"- {text}" for text in findings(change)),
            "",
            *([remark.read_text()] if remark.exists() else []),
        ]
    )


def table(metrics: tuple[Metric, ...], records: Records, change: Mapping[str, Change]) -> str:
    """Best change first; those that diverged last."""
    rank = ranks(records)
    order = sorted(records, key=lambda name: change[name].mean)
    titles = [metric.title for metric in metrics]
    rows = [["", "chosen", "change, %", "rank", *titles], ["---"] * (4 + len(titles))]
    for name in order:
        rows.append(
            [
                name,
                chosen(records[name]["best"]),
                change[name].text(),
                f"{rank[name]:.1f}" if name in rank else "-",
                *cells(metrics, records[name]["test"]),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def chosen(best: list[Any]) -> str:
    """Setting and learning rate."""
    return f"{best[0]}, {best[1]:g}" if best[0] else f"{best[1]:g}"


def cells(metrics: tuple[Metric, ...], test: Mapping[str, list[float] | None]) -> list[str]:
    """Mean and standard deviation of each metric, over the seeds that did not diverge."""
    kept = [found for found in test.values() if found is not None]
    if not kept:
        return ["diverged"] * len(metrics)
    values: NDArray[np.float64] = np.array(kept)
    return [
        with_spread(values[:, k] * m.factor, m.digits)
        + (f" ({len(kept)} of {len(test)} seeds)" if len(kept) < len(test) else "")
        for k, m in enumerate(metrics)
    ]


def with_spread(values: NDArray[np.float64], digits: int) -> str:
    """Mean ± standard deviation; small numbers with digits that show something."""
    if abs(values.mean()) < 10.0**-digits * 50:
        digits += 2
    spread = f" ±{values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def findings(change: Mapping[str, Change]) -> list[str]:
    """What the table says and no more."""
    rivals = {name: c for name, c in change.items() if c.whole}
    best = min(rivals, key=lambda name: rivals[name].mean)
    level = [n for n in rivals if n != best and not apart(rivals[n], rivals[best])]
    texts = [
        f"The best mean is that of {best} ({rivals[best].text()} %)"
        + (f"; not told apart from it: {', '.join(level)}." if level else ", beyond all spreads.")
    ]
    constant = rivals[CONSTANT]
    better = [n for n in rivals if n != CONSTANT and apart(rivals[n], constant)]
    gains = [n for n in better if rivals[n].mean < constant.mean]
    losses = [n for n in better if rivals[n].mean > constant.mean]
    within = [n for n in rivals if n != CONSTANT and n not in better]
    for told, names in (
        ("Better than constant weights, beyond the spread", gains),
        ("Worse than constant weights, beyond the spread", losses),
        ("Within the spread of constant weights", within),
        ("Diverged on a seed", [n for n, c in change.items() if not c.whole]),
    ):
        if names:
            texts.append(f"{told}: {', '.join(names)}.")
    return texts
