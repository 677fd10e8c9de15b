"""The scales that figures and tables are redone at: networks and data, from seconds to the paper's.

The recipe is the data set's (`recipes.RECIPES`) unless a setting says otherwise; for the paper's
data sets it is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

from loss_balance.experiments.errors import UserError
from loss_balance.schemes.adaloss import AdaLoss

SCALES = ("digits", "small", "paper")
FEW = 10  # epochs, for a laptop


@dataclass(frozen=True)
class Setting:
    """What one figure or table trains at one scale."""

    networks: tuple[str, ...]  # a pair is "small:large"
    data: tuple[str, ...]
    final_weight: float = AdaLoss.final_weight  # the paper doubles it on ILSVRC (Appendix B)
    epochs: int | None = None  # None is the recipe's


CIFAR_AND_SVHN = ("cifar10", "cifar100", "svhn")
# "(n, c) drawn from {7, 9, 13, 17, 25} x {16, 32} and {(9, 64), (9, 128)}" (footnote 3)
TWELVE = (
    *(f"resann-{n}-{c}" for c in (16, 32) for n in (7, 9, 13, 17, 25)),
    "resann-9-64",
    "resann-9-128",
)
# "AdaLoss takes (n, c) from {7, 9, 13} x {16, 32}, and CONST takes (n, c) from {13, 17, 25} x
# {16, 32}" (footnote 4)
SIX_PAIRS = tuple(
    f"resann-{small}-{c}:resann-{large}-{c}"
    for c in (16, 32)
    for small, large in ((7, 13), (9, 17), (13, 25))
)

SETTINGS: dict[str, dict[str, Setting]] = {
    "fig2a": {
        "digits": Setting(("resann-1-4",), ("digits",)),
        "small": Setting(("resann-2-8",), ("digit-pairs",), epochs=FEW),
        "paper": Setting(("resann-5-16",), ("cifar100",)),  # c is not given; 16 is the code's
    },
    "fig4": {
        "digits": Setting(("resann-1-4:resann-2-4",), ("digits",)),
        "small": Setting(
            ("resann-1-8:resann-2-8", "resann-2-8:resann-4-8"), ("digit-pairs",), epochs=FEW
        ),
        "paper": Setting(SIX_PAIRS, ("cifar100",)),  # Fig. 4b; 4a and 4c are on the other two
    },
    "fig5a": {
        "digits": Setting(("resann-1-4", "resann-2-4"), ("digits",)),
        "small": Setting(("resann-1-8", "resann-2-8", "resann-4-8"), ("digit-pairs",), epochs=FEW),
        "paper": Setting(("resann-7-32", "resann-13-32", "resann-25-32"), ("cifar100",)),
    },
    "fig5c": {
        "digits": Setting(("resann-1-4",), ("digits", "digit-pairs")),
        "small": Setting(("resann-2-8",), ("digits", "digit-pairs"), epochs=FEW),
        "paper": Setting(("resann-25-32",), CIFAR_AND_SVHN),
    },
    "table3a": {
        "digits": Setting(("resann-1-4",), ("digits",)),
        "small": Setting(("resann-1-8", "resann-2-8"), ("digit-pairs",), epochs=FEW),
        "paper": Setting(TWELVE, CIFAR_AND_SVHN),
    },
    "table3b": {
        "digits": Setting(("resann-1-4", "denseann-1-4", "msdnet-6"), ("digits",), 2.0),
        "small": Setting(
            ("resann-2-8", "denseann-2-6", "msdnet-9-every-2"), ("digit-pairs",), 2.0, FEW
        ),
        "paper": Setting(("resann50", "denseann169", "msdnet38"), ("imagefolder",), 2.0),
    },
}


def setting(name: str, scale: str) -> Setting:
    """The one of a figure or table; UserError if there is no such scale."""
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}: choose from {', '.join(SCALES)}")
    return SETTINGS[name][scale]
