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

    networks: tuple[str, ...]  # those that belong together in one, with colons
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

# Ordinary ResNets and DenseNets whose costs grow by addition; the paper does not name its own.
ORDINARY = (
    "resann26:resann50:resann77:resann101",
    "denseann121:denseann169:denseann201:denseann264",
)

SMALL_PAIRS = ("resann-1-8:resann-2-8", "resann-2-8:resann-4-8")
FIG_4B = {
    "digits": Setting(("resann-1-4:resann-2-4",), ("digits",)),
    "small": Setting(SMALL_PAIRS, ("digit-pairs",), epochs=FEW),
    "paper": Setting(SIX_PAIRS, ("cifar100",)),
}

SETTINGS: dict[str, dict[str, Setting]] = {
    "fig2a": {
        "digits": Setting(("resann-1-4",), ("digits",)),
        "small": Setting(("resann-2-8",), ("digit-pairs",), epochs=FEW),
        "paper": Setting(("resann-5-16",), ("cifar100",)),  # c is not given; 16 is the code's
    },
    "fig4": FIG_4B,  # its name before there were five
    "fig4a": {
        "digits": FIG_4B["digits"],
        "small": Setting(SMALL_PAIRS, ("digits",), epochs=FEW),
        "paper": Setting(SIX_PAIRS, ("cifar10",)),
    },
    "fig4b": FIG_4B,
    "fig4c": {
        "digits": FIG_4B["digits"],
        "small": Setting(
            ("resann-1-4:resann-2-4", "resann-2-4:resann-4-4"), ("digits",), epochs=FEW
        ),  # narrower than 4a's: no third data set comes without files
        "paper": Setting(SIX_PAIRS, ("svhn",)),
    },
    "fig4d": {
        "digits": Setting(("resann-1-4:resann-2-4-every-2",), ("digits",), 2.0),
        "small": Setting(("resann-2-8-every-2:resann-4-8-every-3",), ("digit-pairs",), 2.0, FEW),
        "paper": Setting(("resann50:resann101",), ("imagefolder",), 2.0),  # which is not said
    },
    "fig4e": {
        "digits": Setting(("msdnet-6:msdnet-9-every-2",), ("digits",), 2.0),
        "small": Setting(("msdnet-9-every-2:msdnet-12",), ("digit-pairs",), 2.0, FEW),
        "paper": Setting(("msdnet32:msdnet38",), ("imagefolder",), 2.0),
    },
    "fig5a": {
        "digits": Setting(("resann-1-4", "resann-2-4"), ("digits",)),
        "small": Setting(("resann-1-8", "resann-2-8", "resann-4-8"), ("digit-pairs",), epochs=FEW),
        "paper": Setting(("resann-7-32", "resann-13-32", "resann-25-32"), ("cifar100",)),
    },
    "fig5b": {
        "digits": Setting(
            (
                "resann-1-8:resann-2-8",
                "resann-1-8:resann-2-8:resann-3-8",
                "denseann-1-6:denseann-2-6:denseann-3-6",
                "msdnet-6",
            ),
            ("digits",),
            2.0,
        ),
        "small": Setting(
            (
                "resann-1-8:resann-2-8:resann-4-8",
                "resann-1-8:resann-2-8:resann-3-8:resann-4-8",
                "denseann-1-6:denseann-2-6:denseann-3-6:denseann-4-6",
                "msdnet-9-every-2",
            ),
            ("digit-pairs",),
            2.0,
            FEW,
        ),
        "paper": Setting(
            ("resann26:resann50:resann101", *ORDINARY, "msdnet38"), ("imagefolder",), 2.0
        ),
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
