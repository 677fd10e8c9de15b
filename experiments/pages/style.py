"""How all pictures look."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from loss_balance.experiments.studies.comparison import OPT

COLORS = {
    "const": "C0",
    "linear": "C2",
    "half-end": "C4",
    "adaloss": "C3",
    "log-loss": "C1",
    "uw": "C5",
    "uw-so": "C6",
    "dwa": "C9",
    OPT: "black",
}


STYLE: dict[Any, Any] = {"axes.grid": True, "grid.alpha": 0.3, "font.size": 9}


MILLION = 1e6


def png(figure: Figure) -> bytes:
    """The file's content: the same numbers make the same file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})  # nor has it a date
    return data.getvalue()
