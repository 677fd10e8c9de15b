"""Which colour and marker stands for which scheme, the same in all pictures.

The main schemes have colours of Okabe and Ito's palette that stay apart for colour-blind readers,
and every scheme a marker of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from loss_balance.experiments.pages.style import INK
from loss_balance.experiments.training.schemes import OPT


class Look(NamedTuple):
    """How a scheme is drawn."""

    color: str
    marker: str

    def options(self, **more: Any) -> dict[str, Any]:
        """For matplotlib's `plot` and `errorbar`."""
        return {"color": self.color, "marker": self.marker, "markersize": 5.0, **more}


MAIN = {
    "const": Look("#E69F00", "o"),
    "linear": Look("#009E73", "^"),
    "adaloss": Look("#D55E00", "s"),
    "equilibrium": Look("#56B4E9", "D"),
    "guided": Look("#0072B2", "v"),
    OPT: Look(INK, "*"),
}
OTHERS = {
    "half-end": Look("#CC79A7", "<"),
    "log-loss": Look("#8C6D31", ">"),
    "uw": Look("#7F7F7F", "p"),
    "uw-so": Look("#9467BD", "h"),
    "dwa": Look("#17BECF", "P"),
    "gradient-norm": Look("#A05A2C", "X"),
    "power-mean": Look("#2F4B7C", "d"),
    "relative": Look("#8A9A00", "8"),
}
LOOKS = MAIN | OTHERS
SPARE = [
    Look(color, marker)
    for marker in "dHx+1234|_"
    for color in ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
]  # for schemes of the user's own and the values of a sweep


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each: its own where it has one, else the next that is free."""
    unique = list(dict.fromkeys(names))
    unknown = [name for name in unique if name not in LOOKS]
    spare = {name: SPARE[k % len(SPARE)] for k, name in enumerate(unknown)}
    return {name: LOOKS.get(name) or spare[name] for name in unique}


def look_of(name: str) -> Look:
    """The look of one."""
    return looks([name])[name]
