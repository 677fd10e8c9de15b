"""What the figures should be at most, and which of them are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.performance.rows import Row


class Goal(NamedTuple):
    """At most so much, of one figure of the page."""

    what: str
    table: str  # how its title begins
    row: str
    column: str
    most: float


ADALOSS, IN_JAX = "Balancer(AdaLoss)", "balance(AdaLoss)"
GOALS = (
    Goal("PyTorch, a step of about 1 ms", "PyTorch, a small training", ADALOSS, "eager", 1.04),
    Goal("PyTorch, 9 losses alone", "PyTorch, the combination", ADALOSS, "9 losses", 1.15),
    Goal("PyTorch, operators of a step", "PyTorch, operators", "9 losses in a list", "AdaLoss", 15),
    Goal("JAX, 25 losses, us more", "JAX, total", f"{IN_JAX}, microseconds more", "25 losses", 5),
    Goal("JAX, 75 losses, us more", "JAX, total", f"{IN_JAX}, microseconds more", "75 losses", 5),
    Goal("JAX, ms more to compile", "JAX, what compiling", f"{IN_JAX}, more", "9 losses", 60),
    Goal("tf.function, 9 losses", "TensorFlow, in a tf.function", ADALOSS, "9 losses", 1.3),
    Goal("tf.function, 75 losses", "TensorFlow, in a tf.function", ADALOSS, "75 losses", 1.3),
    Goal("XLA, 9 losses", "TensorFlow, with XLA", ADALOSS, "9 losses", 1.15),
    Goal("XLA, 75 losses", "TensorFlow, with XLA", ADALOSS, "75 losses", 1.15),
    Goal("Keras on TensorFlow, an epoch", "Keras", "balance_model", "on tensorflow", 1.05),
    Goal("Keras on JAX, an epoch", "Keras", "balance_model", "on jax", 1.05),
    Goal("Keras on PyTorch, an epoch", "Keras", "balance_model", "on torch", 1.05),
    Goal("ResANN(9, 32), memory", "PyTorch, peak memory", "resann-9-32", "batch 16", 1.15),
)


def table(rows: Iterable[Row]) -> str:
    """Each goal beside what was found, in Markdown; those that nobody measured are left out."""
    lines = ["| | at most | found | |", "|---|---|---|---|"]
    every = list(rows)
    for goal in GOALS:
        for row in every:
            place = (row.row, row.column) == (goal.row, goal.column)
            if place and row.table.startswith(goal.table):
                met = "met" if row.middle <= goal.most else "missed"
                lines.append(f"| {goal.what} | {goal.most:g} | {row.text()} | {met} |")
    return "\n".join(lines)
