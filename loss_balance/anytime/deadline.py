"""The best answer of one network by a deadline, and how long its exits take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from loss_balance.anytime.answers import ready, start
from loss_balance.anytime.driving import Answer, Choice, Clock, Countdown, Limits, Prediction, drive
from loss_balance.checks import check_count, check_finite, check_increasing, check_range

T = TypeVar("T")


def predict(
    exits: Iterable[T],
    deadline: float | None = None,
    max_exits: int | None = None,
    clock: Clock = time.monotonic,
    *,
    expected_times: Sequence[float] | None = None,
    errors: Sequence[float] | None = None,
    cancel: threading.Event | None = None,
    ready: Callable[[T], object] = ready,
) -> Prediction[T]:
    """The latest answer that is ready by the deadline.

    An exit cannot be interrupted, so the call may return later than the deadline, by at most the
    time of one exit; what that exit gives is not used. Only the first exit is always computed and
    used, however late (`late`): there is an answer even at deadline 0 or below.

    >>> predict(iter(["cat", "lynx", "puma"]), max_exits=2)
    ... # doctest: +ELLIPSIS
    Prediction(value='lynx', exit=1, elapsed=..., late=False, stopped='max_exits', ...)

    Args:
        exits: the answers of one exit after the other, `net.anytime(x)`. A generator is closed
            before the call returns, whatever happens.
        deadline: seconds from the call, None for as long as it takes.
        max_exits: compute no more than that many.
        clock: seconds, any origin.
        expected_times: seconds from the start to each exit, increasing, from `calibrate`. With
            them an exit that would overrun the deadline is not started, save the first.
        errors: validation error of each exit. With them a later answer replaces an earlier one
            only if its error is lower (the paper's rule), and exits beyond the last error are not
            computed. Without them the latest answer counts.
        cancel: when it is set, from any thread, no further exit is started.
        ready: called with each answer, returns once it is computed. The default knows JAX, torch
            and TensorFlow.

    Returns:
        The answer. If an exit raised, `failure` has the exception and the value is that of the
        exits before it.

    Raises:
        ValueError: an argument is out of its range, or `exits` has no answer.
        Exception: what the first exit raised, for then there is no answer.
    """
    countdown = Countdown(deadline, clock)
    if max_exits is not None:
        check_count("max_exits", max_exits)
    if expected_times is not None:
        check_increasing("expected_times", expected_times)
    if errors is not None:
        check_finite("errors", errors)
    choice = Choice(countdown)

    def report(k: int, value: T, elapsed: float) -> None:
        rank = errors[k] if errors is not None else -k  # a later answer counts as a better one
        choice.offer(Answer(rank, elapsed, 0, k, value))

    cancelled = (lambda: False) if cancel is None else cancel.is_set
    known = None if errors is None else len(errors)
    limits = Limits(countdown, cancelled, max_exits, known, expected_times or ())
    stopped, failure = drive(lambda: iter(exits), limits, report, ready=ready)
    if choice.best is None and stopped == "finished":
        raise ValueError("exits must have at least one answer, got none")
    return choice.prediction(stopped, failure)


def calibrate(
    net: Any,
    x: Any,
    repeats: int = 10,
    *,
    quantile: float = 0.5,
    warm_up: int = 1,
    clock: Clock = time.monotonic,
    ready: Callable[[Any], object] = ready,
) -> tuple[float, ...]:
    """Expected seconds from the start to each exit, for `predict` and `eann.Member`.

    Measure with the batch size, device and load of later use.

    Args:
        net: has `anytime(x)`, or is a function that gives its answers.
        x: a typical input.
        repeats: how often to measure.
        quantile: in [0, 1]: 0.5 gives the median of the measured times, 0.9 a time that nine in
            ten runs kept.
        warm_up: runs before that, not measured (compilation, caches).
        clock: seconds, any origin.
        ready: as in `predict`.

    Raises:
        ValueError: an argument is out of its range, there are no exits or not always as many, or
            the clock is too coarse to tell two exits apart.
    """
    check_count("repeats", repeats)
    check_range("quantile", quantile, 0.0, 1.0)
    check_range("warm_up", warm_up, 0)
    runs = [_exit_times(net, x, clock, ready) for _ in range(warm_up + repeats)]
    counts = {len(times) for times in runs}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(f"a network must have the same exits each time, got {sorted(counts)}")
    times = tuple(float(time) for time in np.quantile(runs[warm_up:], quantile, axis=0))
    check_increasing("measured times", times)
    return times


def _exit_times(net: Any, x: Any, clock: Clock, ready: Callable[[Any], object]) -> list[float]:
    times: list[float] = []
    failure = drive(
        lambda: start(net, x),
        Limits(Countdown(clock=clock), cancelled=lambda: False),
        lambda _k, _value, elapsed: times.append(elapsed),
        ready=ready,
    )[1]
    if failure is not None:
        raise failure
    return times
