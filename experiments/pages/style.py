"""How all pictures look."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "text.parse_math": False,  # a run's name may have dollars in it
}


MILLION = 1e6


def png(figure: Figure) -> bytes:
    """The file's content: the same numbers make the same file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})  # nor has it a date
    return data.getvalue()
