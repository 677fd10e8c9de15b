"""Bad batches: what one does to the steps after it, and to the weights long after.

The loop leaves out a step whose gradients are not finite, as GradScaler does; without that any NaN
in a loss is in the network at once, whatever weighs it. What is compared are two twins, one that
left the bad batches out and one that saw good ones in their place; the nearer one counts. The
network itself is trained on the plain sum, by run and twins alike: else two networks would be
compared, which a single batch sets apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.peers.findings import Finding, failed, percent
from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import Batch, batches, criteria
from benchmarks.peers.training import Damage, Run, apart

TABLE = "Bad batches"
BEFORE, AFTER = 25, 40  # good steps before and after
NEAR = 0.01  # of the gradient's length: what a batch more or less does to a mean


class Led(Run):
    """A run whose network goes the same way whatever the weights are; the way learns as ever."""

    def step(self, batch: Batch, damage: Damage = lambda losses: losses) -> bool:
        x, y = batch
        output = self.net(x)
        losses = criteria(output, y)
        network = list(self.net.parameters())
        plain = torch.autograd.grad(torch.stack(losses).sum(), network, retain_graph=True)
        self.optimizer.zero_grad()
        self.way.backward(damage(losses), output)
        finite = self.finite()
        for parameter in () if finite else self.way.parameters():
            parameter.grad = None
        for parameter, gradient in zip(network, plain, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.way.after_step(lambda: damage(criteria(self.net(x), y)))
        self.passed()
        return finite

    def leave_out(self, batch: Batch) -> None:
        """Takes the network where the batch does, without a word to the way."""
        x, y = batch
        self.optimizer.zero_grad()
        torch.stack(criteria(self.net(x), y)).sum().backward()
        self.optimizer.step()
        self.passed()


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
    """What came, in words; and how far the gradient is from the nearer twin's."""
    every = batches(BEFORE + case.steps + AFTER)
    bad = range(BEFORE, BEFORE + case.steps)
    run, without, good = Led(kind), Led(kind), Led(kind)
    for twin in (without, good):
        torch.manual_seed(3)
        for k, batch in enumerate(every):
            if twin is without and k in bad:
                twin.leave_out(batch)
            else:
                twin.step(batch)
    torch.manual_seed(3)
    taken = [run.step(x, case.damage) if k in bad else run.step(x) for k, x in enumerate(every)]
    during, after = taken[BEFORE:-AFTER], taken[-AFTER:]
    gradient = run.fingerprint()
    if not gradient.isfinite().all():
        return f"lost: {after.count(False)} of the next {AFTER} steps not finite", float("inf")
    value = min(apart(gradient, twin.fingerprint()) for twin in (without, good))
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
