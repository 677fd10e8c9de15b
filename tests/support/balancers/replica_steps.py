"""Losses that differ between replicas, and what all of them must make of it together."""

from __future__ import annotations

import math

import numpy as np

from loss_balance import AdaLoss
from loss_balance.experiments.verification.oracle import Oracle

Step = list[list[float | None]]  # a row for each replica
SCHEME = AdaLoss(3, decay=0.5)
FOUR: list[Step] = [  # per step, per replica; None is absent
    [[4.0, 1.0, 0.5], [2.0, 3.0, 0.25], [1.0, 1.0, 1.0], [8.0, 0.5, 0.125]],
    [[1.0, None, 2.0], [3.0, 5.0, 2.0], [None, None, 1.0], [1.0, 1.0, 1.0]],
    [[1.0, math.nan, 2.0], [3.0, 5.0, 4.0], [1.0, 2.0, 3.0], [2.0, None, 1.0]],
    [[1.0, None, 2.0], [3.0, None, 4.0], [1.0, None, 2.0], [2.0, None, 1.0]],
    [[1.0, 2.0, 2.0], [math.inf, 0.5, 4.0], [1.0, 2.0, 3.0], [2.0, 1.0, 1.0]],
]
TWO = [step[:2] for step in FOUR]
SKIPPED = [1, 1, 0]  # by the end, in either


def numbers(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """(losses, which are there), both of shape (replicas, losses), NaN where one is not."""
    mask = np.array([[x is not None for x in row] for row in step])
    losses = np.array([[math.nan if x is None else x for x in row] for row in step], np.float32)
    return losses, mask


def expected_weights(steps: list[Step]) -> list[list[float]]:
    """The oracle's weights after each step, on the mean over the replicas that have a loss."""
    oracle = Oracle(3, decay=0.5)
    return [oracle.update(_mean_over_replicas(step)) for step in steps]


def _mean_over_replicas(step: Step) -> list[float | None]:
    """What one process with the whole batch would see."""
    merged: list[float | None] = []
    for values in zip(*step, strict=True):
        there = [x for x in values if x is not None]
        merged.append(sum(there) / len(there) if there else None)
    return merged
