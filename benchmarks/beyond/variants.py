"""What the study trains: the package's schemes, ablations of them, and what else was tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.beyond.weights import ExcessLoss, PowerMean
from loss_balance.schemes.adaloss import AdaLoss, LinearSchedule
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Constant, Linear, Single


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        scheme: of (exits, steps of the whole training).
        trunk: how its gradient is made. "sum": of the weighted sum of losses. "equilibrium": of
            the heads' in equilibrium. "weighted": of the heads' times their weights, summed.
        strength: of the guidance, 0 for none.
        share: whether an exit is guided by 1 - w_i; else all but the last are, evenly.
        teacher: "last" exit or the "next" one.
        ramp: strength times 1 ("none"), the share of training done ("up") or to do ("down"), or
            what is done of its first half ("half").
        pull: the trunk's shares are of the weights to this power: 1 as they are, 0 even.
        mixed: an exit's own loss counts with 1 less the share of its guidance.
        mean: the total is divided by the sum of the weights.
        observes: what the weights follow, the "losses" or the "norms" of their gradients where the
            exit branches off, those of the step before (`GradientNorm`).
        backbone: share of training in which the last exit alone is trained, before all are.
    """

    scheme: Callable[[int, int], Scheme] = lambda exits, _: AdaLoss(exits)
    trunk: str = "sum"
    strength: float = 0.0
    share: bool = True
    teacher: str = "last"
    ramp: str = "none"
    pull: float = 1.0
    mixed: bool = False
    mean: bool = False
    observes: str = "losses"
    backbone: float = 0.0


def _constant(exits: int, _: int) -> Scheme:
    return Constant(exits)


def _linear(exits: int, _: int) -> Scheme:
    return Linear(exits)


def _adaloss(**options: float) -> Callable[[int, int], Scheme]:
    return lambda exits, _: AdaLoss(exits, **options)  # type: ignore[arg-type]


def _annealed(exits: int, steps: int) -> Scheme:
    return AdaLoss(exits, gamma=LinearSchedule(1.0, 0.0, steps))


def _excess(exits: int, _: int) -> Scheme:
    return ExcessLoss(exits)


def _power(p: float) -> Callable[[int, int], Scheme]:
    return lambda exits, _: PowerMean(exits, p)


EQUILIBRIUM = Variant(trunk="equilibrium")
THROUGHOUT = replace(EQUILIBRIUM, strength=1.0)
GUIDED = replace(EQUILIBRIUM, strength=1.0, ramp="up", pull=0.75)

MAIN: dict[str, Variant] = {  # as the package has them
    "const": Variant(_constant),
    "linear": Variant(_linear),
    "adaloss": Variant(),
    "equilibrium": EQUILIBRIUM,
    "guided": GUIDED,
    "gradient-norm": replace(EQUILIBRIUM, observes="norms"),
    "opt": Variant(lambda exits, _: Single(exits)),
}
ABLATIONS: dict[str, Variant] = {
    "equilibrium, const weights": replace(EQUILIBRIUM, scheme=_constant),
    "equilibrium, linear weights": replace(EQUILIBRIUM, scheme=_linear),
    "equilibrium, gamma 0.3": replace(EQUILIBRIUM, scheme=_adaloss(gamma=0.3)),
    "equilibrium, gamma annealed": replace(EQUILIBRIUM, scheme=_annealed),
    "equilibrium, final weight 2": replace(EQUILIBRIUM, scheme=_adaloss(final_weight=2.0)),
    "adaloss, mean for sum": Variant(mean=True),
    "const, mean for sum": Variant(_constant, mean=True),
    "heads unweighted, trunk plain": Variant(trunk="weighted"),
    "guidance alone": Variant(strength=1.0),
    "guidance alone, rising": Variant(strength=1.0, ramp="up"),
    "guided, throughout": THROUGHOUT,
    "guided, throughout, evenly": replace(THROUGHOUT, share=False),
    "guided, throughout, g 0.5": replace(THROUGHOUT, strength=0.5),
    "guided, throughout, gamma 0.3": replace(THROUGHOUT, scheme=_adaloss(gamma=0.3)),
    "guided, gamma 0.3": replace(GUIDED, scheme=_adaloss(gamma=0.3)),
    "guided, gamma annealed": replace(GUIDED, scheme=_annealed),
    "guided, final weight 2": replace(GUIDED, scheme=_adaloss(final_weight=2.0)),
}
SEARCH: dict[str, Variant] = {
    "guided, pull 0": replace(GUIDED, pull=0.0),
    "guided, pull 0.5": replace(GUIDED, pull=0.5),
    "guided, pull 0.5, g 0.5": replace(GUIDED, pull=0.5, strength=0.5),
    "guided, pull 1": replace(GUIDED, pull=1.0),
    "guided, throughout, pull 0": replace(THROUGHOUT, pull=0.0),
    "guided, throughout, pull 0, g 0.5": replace(THROUGHOUT, pull=0.0, strength=0.5),
    "guided, by half of the training": replace(GUIDED, ramp="half"),
    "guided, pull 1, by half of the training": replace(GUIDED, pull=1.0, ramp="half"),
    "guided, throughout, pull 0.75": replace(THROUGHOUT, pull=0.75),
    "guided, throughout, pull 0.75, g 0.5": replace(THROUGHOUT, pull=0.75, strength=0.5),
    "guided, falling": replace(THROUGHOUT, ramp="down"),
    "guided, throughout, by the next exit": replace(THROUGHOUT, teacher="next"),
    "guided, throughout, in place of the loss": replace(THROUGHOUT, mixed=True),
    "guided, throughout, in place of the loss, pull 0": replace(THROUGHOUT, mixed=True, pull=0.0),
    "backbone first": Variant(backbone=0.5),
    "equilibrium, backbone first": replace(EQUILIBRIUM, backbone=0.5),
    "equilibrium, excess loss": replace(EQUILIBRIUM, scheme=_excess),
    "guided, throughout, excess loss": replace(THROUGHOUT, scheme=_excess),
    "equilibrium, p -1": replace(EQUILIBRIUM, scheme=_power(-1.0)),
    "equilibrium, p -0.5": replace(EQUILIBRIUM, scheme=_power(-0.5)),
    "equilibrium, p 0": replace(EQUILIBRIUM, scheme=_power(0.0)),
    "equilibrium, p 0.5": replace(EQUILIBRIUM, scheme=_power(0.5)),
    "guided, throughout, p 0.5": replace(THROUGHOUT, scheme=_power(0.5)),
    "gradient norms, weighted sum": Variant(observes="norms"),
    "guided, gradient norms": replace(GUIDED, observes="norms"),
}
VARIANTS = MAIN | ABLATIONS | SEARCH
