"""What competes: constant and static weights, our schemes, and other packages' ways.

Each has the same number of trials on a problem, so one with fewer settings tries more learning
rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers.catalogue import find
from benchmarks.peers.interface import Losses, Way
from benchmarks.quality.problems.problem import Fork, Problem, Session, forked_nowhere
from loss_balance import (
    AdaLoss,
    Constant,
    DynamicWeightAverage,
    LinearSchedule,
    LogLoss,
    PowerMean,
    RelativeAdaLoss,
    Scheme,
    SoftmaxInverse,
    Static,
    UncertaintyWeighting,
)
from loss_balance.backends.torch import Balancer

Make = Callable[[Session, int, int], Way]  # of (session, losses, steps of the training)
CONSTANT, STATIC = "constant weights", "static weights, tried by hand"
PEERS = {  # title: whether it needs the one tensor that all losses are made of
    "torchjd GeometricMean": False,
    "LibMTL GradNorm": False,
    "torchjd IMTLL": False,
    "torchjd FAMO": False,
    "LibMTL RLW": False,
    "AutomaticWeightedLoss-style": False,
    "audiocraft (EnCodec) Balancer": True,
    "softadaptx SoftAdapt": False,
}


class Method(NamedTuple):
    """A name, and the settings that it is tried with."""

    title: str
    library: str  # "" for weights that nobody needs a package for
    settings: dict[str, Make]


class Balanced(Way):
    """A balancer of ours, in equilibrium if asked to, and guided if `guidance` is above 0."""

    def __init__(
        self,
        session: Session,
        scheme: Scheme,
        guidance: float = 0.0,
        *,
        forks: bool = False,
        **more: float,
    ) -> None:
        super().__init__(scheme.num_losses, session.shared)
        self.balancer = Balancer(scheme, equilibrium=forks, **more)  # type: ignore[arg-type]
        self.fork: Fork = self.balancer.fork if forks else forked_nowhere
        self.guidance: float | LinearSchedule = guidance

    def backward(self, losses: Losses, output: Tensor) -> None:
        total = self.guided(output) if self.guidance else torch.zeros(())
        (total + self.balancer(losses)).backward()

    def guided(self, output: Tensor) -> Tensor:
        """What guidance adds to the total."""
        return self.balancer.guidance(output, self.guidance)


def of(scheme: Callable[[int], Scheme]) -> Make:
    """By the weights of a scheme."""
    return lambda session, count, _: Balanced(session, scheme(count))


def in_equilibrium(gamma: float) -> Make:
    """AdaLoss in equilibrium."""
    return lambda session, count, _: Balanced(session, AdaLoss(count, gamma), forks=True)


def guided(strength: float) -> Make:
    """AdaLoss in equilibrium, early exits guided, as the commands' `guided`."""

    def make(session: Session, count: int, steps: int) -> Way:
        way = Balanced(session, AdaLoss(count), strength, forks=True, pull=0.75)
        way.guidance = LinearSchedule(0.0, strength, steps)
        return way

    return make


def peer(title: str) -> Make:
    """Another package's, with its own defaults."""
    return lambda session, count, _: find(title)(count, session.shared)


OURS: dict[str, dict[str, Make]] = {
    "AdaLoss": {f"gamma {g:g}": of(lambda n, g=g: AdaLoss(n, g)) for g in (0.05, 0.3)},  # type: ignore[misc]
    "RelativeAdaLoss": {
        f"gamma {g:g}": of(lambda n, g=g: RelativeAdaLoss(n, g))  # type: ignore[misc]
        for g in (0.05, 0.3)
    },
    "PowerMean": {f"power {p:g}": of(lambda n, p=p: PowerMean(n, p)) for p in (0.5, -1.0)},  # type: ignore[misc]
    "LogLoss": {f"decay {d:g}": of(lambda n, d=d: LogLoss(n, d)) for d in (0.0, 0.99)},  # type: ignore[misc]
    "SoftmaxInverse": {
        f"temperature {t:g}": of(lambda n, t=t: SoftmaxInverse(n, t))  # type: ignore[misc]
        for t in (1.0, 20.0)
    },
    "UncertaintyWeighting": {
        f"rate {r:g}": of(lambda n, r=r: UncertaintyWeighting(n, r))  # type: ignore[misc]
        for r in (0.01, 0.1)
    },
}


def averaged(temperature: float) -> Make:
    """DWA, of the session's epochs."""
    return lambda session, count, _: Balanced(
        session, DynamicWeightAverage(count, session.steps, temperature)
    )


def methods(problem: Problem) -> Iterator[Method]:
    """All that can be trained on a problem, constant weights first."""
    yield Method(CONSTANT, "", {"": of(Constant)})
    statics = {
        label: of(lambda _, w=weights: Static(w))  # type: ignore[misc]
        for label, weights in problem.statics.items()
    }
    yield Method(STATIC, "", statics)
    ours = OURS | {"DynamicWeightAverage": {f"temperature {t:g}": averaged(t) for t in (2.0, 0.5)}}
    if problem.exits:
        ours["AdaLoss in equilibrium"] = {f"gamma {g:g}": in_equilibrium(g) for g in (0.05, 0.3)}
        ours["AdaLoss in equilibrium, guided"] = {f"strength {s:g}": guided(s) for s in (1.0, 0.5)}
    theirs = [title for title, output in PEERS.items() if problem.output or not output]
    for name, title in zip_longest(ours, theirs):  # by turns, for a study may be stopped
        if name is not None:
            yield Method(name, "loss-balance", ours[name])
        if title is not None:
            yield Method(title, title.split(" ")[0], {"": peer(title)})


def installed(title: str) -> bool:
    """Whether a peer's package is there."""
    if title not in PEERS:
        return True
    try:
        find(title)
    except ImportError:
        return False
    return True
