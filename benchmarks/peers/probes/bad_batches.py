"""Bad batches: what one does to the run, and to the weights long after it.

The loop leaves out a step whose gradients are not finite, as GradScaler does; without that any NaN
in a loss is in the network at once, whatever weighs it. What is compared is a twin that left the
bad batch out, where none of it can be used, or saw a good one in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.peers.findings import Finding, failed, percent
from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import batches
from benchmarks.peers.training import Damage, Run, apart

TABLE = "Bad batches"
BEFORE, AFTER = 25, 40  # good steps before and after
NEAR = 0.05  # of the gradient's length: a step more or less moves a learned weight by that much


def scaled(losses: Losses, factor: float) -> Losses:
    """The first loss times a number."""
    return [losses[0] * factor, *losses[1:]]


def absent(losses: Losses) -> Losses:
    """Without the first loss."""
    return [None, *losses[1:]]  # type: ignore[list-item]  # what absent is to those who allow it


class Case(NamedTuple):
    """What happens to the first loss, and in how many steps."""

    damage: Damage
    steps: int = 1
    useless: bool = False  # such a step had better not be taken


CASES = {
    "NaN once": Case(partial(scaled, factor=float("nan")), useless=True),
    "infinite once": Case(partial(scaled, factor=float("inf")), useless=True),
    "0 once": Case(partial(scaled, factor=0.0)),
    "0 in 50 steps": Case(partial(scaled, factor=0.0), steps=50),
    "absent (None) once": Case(absent),
}


def survived(kind: type[Way], case: Case) -> tuple[str, float]:
    """What came, in words; and how far the gradient is from the twin's."""
    every = batches(BEFORE + case.steps + AFTER)
    bad = range(BEFORE, BEFORE + case.steps)
    run, twin = Run(kind), Run(kind)
    torch.manual_seed(3)
    for k, batch in enumerate(every):
        if k in bad and case.useless:
            twin.passed()
        else:
            twin.step(batch)
    torch.manual_seed(3)
    taken = [run.step(x, case.damage) if k in bad else run.step(x) for k, x in enumerate(every)]
    during, after = taken[BEFORE:-AFTER], taken[-AFTER:]
    gradient = run.fingerprint()
    if not gradient.isfinite().all():
        return f"lost: {after.count(False)} of the next {AFTER} steps not finite", float("inf")
    value = apart(gradient, twin.fingerprint())
    words = [] if value < NEAR else [f"gradient {percent(value)} off {AFTER} steps later"]
    if not all(during) and not case.useless:
        words.append(f"{during.count(False)} of {case.steps} bad steps not finite")
    if not all(after):
        words.append(f"{after.count(False)} of the next {AFTER} steps not finite")
    return "; ".join(words) or "goes on", value


def probe(kind: type[Way]) -> Iterator[Finding]:
    """A cell a case."""
    for column, case in CASES.items():
        try:
            text, value = survived(kind, case)
        except Exception as error:  # of any package, of any kind: that is the finding
            yield Finding(TABLE, "", column, failed(error))
        else:
            yield Finding(TABLE, "", column, text, value)
