"""How an answer, or why there is none, is told over HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.anytime import top_probability
from loss_balance.experiments.serving.intake import Problem
from loss_balance.experiments.serving.requests import (
    Answer,
    Closing,
    Expired,
    Gone,
    QueueFull,
    TooLate,
)
from loss_balance.experiments.serving.service import log_failure

REFUSALS: dict[type[Exception], tuple[int, str]] = {  # status, outcome as the metrics count it
    QueueFull: (429, "full"),
    Expired: (503, "expired"),
    TooLate: (503, "too-late"),
    Closing: (503, "closing"),
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is known of the network beside its answers.

    Attributes:
        exits: how many it has.
        class_names: in the order of the logits; none if not known.
        prepare: the standardised image (1, H, W, C) from the content of a file, or UserError.
    """

    name: str
    exits: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    prepare: Callable[[bytes], NDArray[np.float32]]

    def described(self, answer: Answer, arrival: float, deadline: float) -> dict[str, Any]:
        """The answer to what arrived then, as JSON has it."""
        label = int(answer.logits.argmax())
        probability = float(top_probability(answer.logits))
        return {
            "class": label,
            "name": self.class_names[label] if self.class_names else str(label),
            "probability": round(probability, 6) if math.isfinite(probability) else None,
            "exit": answer.exit,
            "exits": self.exits,
            "elapsed_ms": _milliseconds(answer.at - arrival),
            "deadline_ms": _milliseconds(deadline - arrival),
            "late": answer.at > deadline,
            "batch": answer.batch,
        }


def _milliseconds(seconds: float) -> float | None:
    """To the microsecond; None for infinity."""
    return round(1000 * seconds, 3) if seconds < math.inf else None


def problem(error: Exception) -> Problem:
    """How what went wrong is told to whoever asked."""
    if isinstance(error, Gone):
        return Problem(499, str(error), "gone")  # nobody reads it; nginx's number
    for kind, (status, outcome) in REFUSALS.items():
        if isinstance(error, kind):
            return Problem(status, str(error), outcome)
    log_failure("the network", error)
    return Problem(500, "the network failed on this image or one in its batch", "failed")


def event(kind: str, found: dict[str, Any]) -> str:
    """One of a stream of server-sent events."""
    return f"event: {kind}\ndata: {json.dumps(found)}\n\n"
