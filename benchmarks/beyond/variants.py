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
        ramp: strength times 1 ("none"), the share of training done ("up") or to do ("down").
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
GUIDED = replace(EQUILIBRIUM, strength=1.0)

VARIANTS: dict[str, Variant] = {
    "const": Variant(_constant),
    "linear": Variant(_linear),
    "adaloss": Variant(),
    "equilibrium": EQUILIBRIUM,
    "guided": GUIDED,
    "opt": Variant(lambda exits, _: Single(exits)),
    # ablations
    "equilibrium, const": replace(EQUILIBRIUM, scheme=_constant),
    "equilibrium, linear": replace(EQUILIBRIUM, scheme=_linear),
    "guidance alone": Variant(strength=1.0),
    "guided, evenly": replace(GUIDED, share=False),
    "guided, g 0.5": replace(GUIDED, strength=0.5),
    "guided, g 2": replace(GUIDED, strength=2.0),
    "heads unweighted": Variant(trunk="weighted"),
    "adaloss, mean": Variant(mean=True),
    "const, mean": Variant(_constant, mean=True),
    "equilibrium, gamma 0.3": replace(EQUILIBRIUM, scheme=_adaloss(gamma=0.3)),
    "equilibrium, gamma annealed": replace(EQUILIBRIUM, scheme=_annealed),
    "equilibrium, final weight 2": replace(EQUILIBRIUM, scheme=_adaloss(final_weight=2.0)),
    "guided, gamma 0.3": replace(GUIDED, scheme=_adaloss(gamma=0.3)),
    "guided, gamma annealed": replace(GUIDED, scheme=_annealed),
    "guided, final weight 2": replace(GUIDED, scheme=_adaloss(final_weight=2.0)),
    # further
    "gradient norms": Variant(observes="norms"),
    "equilibrium, gradient norms": replace(EQUILIBRIUM, observes="norms"),
    "guided, gradient norms": replace(GUIDED, observes="norms"),
    "backbone first": Variant(backbone=0.5),
    "equilibrium, backbone first": replace(EQUILIBRIUM, backbone=0.5),
    "guided, even pull": replace(GUIDED, pull=0.0),
    "guided, g 0.5, even pull": replace(GUIDED, pull=0.0, strength=0.5),
    "guided, rising, even pull": replace(GUIDED, pull=0.0, ramp="up"),
    "guided, rising, pull 0.75": replace(GUIDED, pull=0.75, ramp="up"),
    "guided, g 0.5, rising, root pull": replace(GUIDED, pull=0.5, ramp="up", strength=0.5),
    "guided, rising, root pull": replace(GUIDED, pull=0.5, ramp="up"),
    "guided, mixed, even pull": replace(GUIDED, mixed=True, pull=0.0),
    "guided, mixed, rising": replace(GUIDED, mixed=True, ramp="up"),
    "guided, mixed": replace(GUIDED, mixed=True),
    "guided, mixed, g 0.5": replace(GUIDED, mixed=True, strength=0.5),
    "guided, g 0.5, falling": replace(GUIDED, strength=0.5, ramp="down"),
    "guided, const": replace(GUIDED, scheme=_constant, share=False),
    "guided by the next": replace(GUIDED, teacher="next"),
    "guided, strength falling": replace(GUIDED, ramp="down"),
    "guided, strength rising": replace(GUIDED, ramp="up"),
    "equilibrium, excess loss": replace(EQUILIBRIUM, scheme=_excess),
    "guided, excess loss": replace(GUIDED, scheme=_excess),
    "equilibrium, p -1": replace(EQUILIBRIUM, scheme=_power(-1.0)),
    "equilibrium, p -0.5": replace(EQUILIBRIUM, scheme=_power(-0.5)),
    "equilibrium, p 0": replace(EQUILIBRIUM, scheme=_power(0.0)),
    "equilibrium, p 0.5": replace(EQUILIBRIUM, scheme=_power(0.5)),
    "guided, p 0.5": replace(GUIDED, scheme=_power(0.5)),
}
