"""Batches whose samples stop one by one: early exit, and thresholds that meet an average budget.

Source: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification",
Section 5.2 (budgeted batch classification); the paper calls this budgeted prediction and keeps it
apart from anytime prediction (Section 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import count
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from loss_balance.anytime.answers import start, to_numpy
from loss_balance.checks import check_increasing

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]
LOG_P = 800.0  # exp(-800) is 0: all leave at the first exit, or none before the last


class EarlyExits(NamedTuple):
    """What each of N samples left with; `np.take(costs, exits).mean()` is the mean cost."""

    logits: Floats  # shape (N, classes), of the exit the sample left at
    exits: Integers  # shape (N,), index of that exit


class Thresholds(NamedTuple):
    """Confidences to stop at, with what they cost on the scores they were made from."""

    values: tuple[float, ...]  # one per exit: a sample of at least that score leaves there
    cost: float  # mean over the samples
    shares: tuple[float, ...]  # share of the samples that leave at each exit


def top_probability(logits: npt.ArrayLike) -> Floats:
    """The largest softmax probability: shape (..., classes) to (...), in float64.

    >>> top_probability([[0.0, 0.0], [0.0, 50.0]]).tolist()
    [0.5, 1.0]
    """
    logits = np.asarray(logits, dtype=np.float64)
    below = logits - logits.max(axis=-1, keepdims=True)
    return cast(Floats, 1.0 / np.exp(below).sum(axis=-1))


def early_exit(
    net: Any,
    x: Any,
    confidence: float | Sequence[float],
    score: Callable[[Floats], Floats] = top_probability,
) -> EarlyExits:
    """Classifies a batch; each sample leaves at the first exit that is confident about it.

    Samples that are done leave the batch: the deeper layers compute the others only, and nothing
    once all are done. At the last exit all leave. A score that is NaN counts as not confident.

    Args:
        net: `net.anytime(x)`, or `net(x)` of a function, yields the logits (N, classes) of one
            exit at a time, and its `send(positions)` keeps only these samples of the current
            batch and returns the next exit's logits.
        x: the batch, in the framework of the network.
        confidence: leave at a score of at least this; or one such number per exit
            (`budgeted_thresholds(...).values`).
        score: the confidence in each answer, from logits (n, classes) to (n,).

    Raises:
        ValueError: `confidence` has another number of exits than the network, the network has no
            exit or does not keep the samples it was told to.
    """
    thresholds = _PerExit(confidence)
    with closing(_generator(net, x)) as answers:
        logits = _send(answers, None)
        if logits is None:
            raise ValueError("a network must have at least one exit, got none")
        result = EarlyExits(np.empty_like(logits), np.zeros(len(logits), dtype=np.intp))
        alive = np.arange(len(logits))  # positions in x of the samples still in the batch
        for k in count():
            _check_rows(logits, len(alive))
            result.logits[alive], result.exits[alive] = logits, k
            stay = np.flatnonzero(~(score(logits) >= thresholds.at(k)))
            alive = alive[stay]
            if len(stay) == 0:
                break
            logits = _send(answers, stay if len(stay) < len(logits) else None)
            if logits is None:
                thresholds.check_end(k + 1)
                break
    return result


class _PerExit:
    """A confidence for each exit."""

    def __init__(self, confidence: float | Sequence[float]) -> None:
        if np.isnan(confidence).any():
            raise ValueError(f"confidence must be numbers, got {confidence}")
        self.values = np.asarray(confidence, dtype=np.float64)

    def at(self, k: int) -> float:
        """The threshold of exit k."""
        if self.values.ndim == 0:
            return float(self.values)
        if k >= len(self.values):
            raise ValueError(f"confidence must be one per exit, got {k} and there are more exits")
        return float(self.values[k])

    def check_end(self, exits: int) -> None:
        """ValueError if the network ended before the confidences did."""
        if self.values.ndim and exits < len(self.values):
            raise ValueError(
                f"confidence must be one per exit, got {len(self.values)} for {exits} exits"
            )


def _generator(net: Any, x: Any) -> Generator[Any, Any, Any]:
    answers = start(net, x)
    if not hasattr(answers, "send"):
        kind = type(answers).__name__
        raise TypeError(f"a network must give a generator with send(positions), got {kind}")
    return cast("Generator[Any, Any, Any]", answers)


def _send(answers: Generator[Any, Any, Any], stay: Integers | None) -> Floats | None:
    """The next exit's logits, of the samples that stay (None: all), or None after the last."""
    try:
        return to_numpy(answers.send(stay))
    except StopIteration:
        return None


def _check_rows(logits: Floats, expected: int) -> None:
    if logits.ndim != 2 or len(logits) != expected:
        raise ValueError(
            "anytime(x) must yield logits (batch, classes) of the samples sent to it, "
            f"expected {expected} rows, got the shape {logits.shape}"
        )


def budgeted_thresholds(
    validation_scores: npt.ArrayLike, budget: float, costs: Sequence[float] | None = None
) -> Thresholds:
    r"""Thresholds with which a sample costs `budget` on average, as for MSDNet.

    The share of samples that leave at exit k is proportional to :math:`p^k`, and exit k lets go
    the most confident of those that are left. p is the one with the highest mean cost that does
    not exceed the budget.

    >>> scores = [[0.9, 0.9], [0.8, 0.9], [0.4, 0.9], [0.3, 0.9]]  # four samples, two exits
    >>> budgeted_thresholds(scores, 2.0, costs=[1.0, 3.0])
    Thresholds(values=(0.8, -inf), cost=2.0, shares=(0.5, 0.5))

    Args:
        validation_scores: shape (N, exits), confidence in the answer of each exit for N samples
            (`top_probability`), not those the thresholds are used on.
        budget: mean cost of a sample, in the unit of `costs`.
        costs: cost up to each exit, increasing; by default 1, 2, 3, ...

    Returns:
        Thresholds for `early_exit`, the mean cost they reach on the validation scores, at most
        `budget`, and the share of samples per exit. Samples with equal scores leave together, so
        with many of those the cost can stay well below.

    Raises:
        ValueError: the budget is below the first exit's cost, scores or costs do not fit.
    """
    scores = np.asarray(validation_scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape or np.isnan(scores).any():
        raise ValueError(
            f"validation_scores must be (samples, exits), without NaN, got the shape {scores.shape}"
        )
    costs = range(1, scores.shape[1] + 1) if costs is None else costs
    check_increasing("costs", costs)
    if len(costs) != scores.shape[1]:
        raise ValueError(
            f"costs must be one per exit, got {len(costs)} for {scores.shape[1]} exits"
        )
    if not budget >= costs[0]:
        raise ValueError(f"budget must be at least the first exit's cost {costs[0]}, got {budget}")
    low, high = -LOG_P, LOG_P
    if (all_the_way := _leave(scores, costs, high)).cost <= budget:
        return all_the_way
    for _ in range(64):  # by then low and high are neighbours in floating point
        middle = (low + high) / 2
        fits = _leave(scores, costs, middle).cost <= budget
        low, high = (middle, high) if fits else (low, middle)
    return _leave(scores, costs, low)


def _leave(scores: Floats, costs: Sequence[float], log_p: float) -> Thresholds:
    """Thresholds by which about a share proportional to p^k leaves at exit k."""
    samples, exits = scores.shape
    powers = log_p * np.arange(exits)
    weights = np.exp(powers - powers.max())
    quotas = np.floor(samples * np.cumsum(weights) / weights.sum()).astype(int)  # by this exit
    left = np.arange(samples)
    values, counts = [], []
    for k in range(exits - 1):
        due = quotas[k] - (samples - len(left))
        value = np.sort(scores[left, k])[-due] if due > 0 else math.inf
        stay = left[scores[left, k] < value]
        values.append(float(value))
        counts.append(len(left) - len(stay))
        left = stay
    shares = np.array([*counts, len(left)]) / samples
    return Thresholds((*values, -math.inf), float(shares @ np.array(costs)), tuple(shares.tolist()))
