"""Running one network exit by exit against limits, and choosing among the answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from loss_balance.anytime.answers import ready

Clock = Callable[[], float]  # seconds since some fixed moment, never going back
T = TypeVar("T")
Stop = Literal["finished", "max_exits", "deadline", "cancelled", "failed"]


@dataclass(frozen=True, eq=False)  # eq: arrays do not compare to one truth value
class Prediction(Generic[T]):
    """The answer that was the best one by the deadline, and how it came about."""

    value: T | None  # None only where it was stopped before any answer came
    exit: int | None  # index of the exit that gave it, from 0
    elapsed: float  # seconds from the call until the value was ready
    late: bool = False  # ready after the deadline: no exit was in time, this is the first one
    stopped: Stop = "finished"  # why no further exit was computed
    failure: BaseException | None = None  # what went wrong; the value is what came before it
    member: int | None = None  # index of the network, 0 where only one ran


class Answer(NamedTuple):
    """An exit's answer, and what decides whether it is used."""

    rank: float  # the lower one is used: its validation error, or what stands for that
    elapsed: float
    member: int
    exit: int
    value: Any


class Choice:
    """The paper's selection rule (Section 4), whatever order the answers come in.

    An answer replaces the current one only if its validation error is lower. One that is late
    counts only while there is no other.
    """

    def __init__(self, countdown: Countdown) -> None:
        self.countdown = countdown
        self.best: Answer | None = None

    def offer(self, answer: Answer) -> None:
        """Takes the answer if it is better."""
        if self.best is None or self._rank(answer) < self._rank(self.best):
            self.best = answer

    def _rank(self, answer: Answer) -> tuple[bool, float, float, int]:
        late = self.countdown.is_late(answer.elapsed)
        return late, answer.elapsed if late else answer.rank, answer.elapsed, answer.member

    def prediction(self, stopped: Stop, failure: BaseException | None = None) -> Prediction[Any]:
        """What the caller gets. Raises the failure if there is no answer beside it."""
        if self.best is None:
            if failure is not None:
                raise failure
            return Prediction(None, None, self.countdown.elapsed(), stopped=stopped)
        _, elapsed, member, exit_, value = self.best
        late = self.countdown.is_late(elapsed)
        return Prediction(value, exit_, elapsed, late, stopped, failure, member)


@dataclass(frozen=True)
class Limits:
    """When to stop one network."""

    countdown: Countdown
    cancelled: Callable[[], bool]
    max_exits: int | None = None
    num_errors: int | None = None  # of how many exits the validation error is known
    expected_times: Sequence[float] = ()  # seconds from the start of the network to each exit

    def before(self, k: int, needed: bool) -> Stop | None:
        """Why exit k must not be started now, or None. `needed`: the first exit may be late."""
        if self.cancelled():
            return "cancelled"
        if self.max_exits is not None and k >= self.max_exits:
            return "max_exits"
        if k == self.num_errors:
            return "finished"
        if k == 0 and needed:
            return None
        elapsed, deadline = self.countdown.elapsed(), self.countdown.deadline
        overruns = elapsed + self._step(k) > deadline
        return "deadline" if overruns or elapsed >= deadline else None

    def check_end(self, k: int) -> None:
        """ValueError if a network that ends after k exits has too few for its errors."""
        if self.num_errors is not None and k < self.num_errors:
            raise ValueError(
                f"errors must be those of the network's exits, got {self.num_errors} for {k} exits"
            )

    def _step(self, k: int) -> float:
        times = [0.0, *self.expected_times]
        return times[k + 1] - times[k] if k + 1 < len(times) else 0.0


def drive(
    begin: Callable[[], Iterator[Any]],
    limits: Limits,
    report: Callable[[int, Any, float], None],
    *,
    needed: bool = True,
    ready: Callable[[Any], object] = ready,
) -> tuple[Stop, Exception | None]:
    """Runs one network until it ends or a limit stops it, and closes it in any case.

    Each answer goes to `report(exit, value, elapsed)` as soon as it is ready, so none is lost.

    Returns:
        Why it ended, and the exception if it was one.
    """
    try:
        exits: Any = begin()
        with closing(exits) if hasattr(exits, "close") else nullcontext():
            k = 0
            while (stop := limits.before(k, needed)) is None:
                try:
                    value = next(exits)
                except StopIteration:
                    limits.check_end(k)
                    return "finished", None
                ready(value)
                report(k, value, limits.countdown.elapsed())
                k += 1
            return stop, None
    except Exception as error:
        return "failed", error


class Countdown:
    """A deadline and the watch it is read on. A pickled copy counts on, in another process too.

    Clocks that only count forward differ between machines, so the copy also looks at the time of
    day: what passed on the way (queues, the start of a process) counts. It never shows less than
    the original did, so a machine whose time of day lags costs punctuality by the way there only.

    Args:
        deadline: seconds from now, None for as long as it takes.
        clock: seconds, any origin.
        already: seconds that have passed before.

    Raises:
        ValueError: the deadline is no number.
    """

    def __init__(
        self, deadline: float | None = None, clock: Clock = time.monotonic, already: float = 0.0
    ) -> None:
        self.clock = clock
        self.start: float = clock() - already
        self.deadline: float = _seconds(deadline)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def left(self) -> float:
        """Seconds until the deadline, 0 or less once it is over."""
        return self.deadline - self.elapsed()

    def is_late(self, elapsed: float) -> bool:
        """Whether what was ready then came after the deadline."""
        return elapsed > self.deadline

    def __reduce__(self) -> tuple[Callable[..., Countdown], tuple[float, float, float]]:
        elapsed = self.elapsed()
        return _resumed, (self.deadline, elapsed, time.time() - elapsed)


def _resumed(deadline: float, elapsed: float, started_at: float) -> Countdown:
    return Countdown(deadline, time.monotonic, max(elapsed, time.time() - started_at))


def _seconds(deadline: float | None) -> float:
    """The deadline as a number from 0 up, infinite for None."""
    if deadline is None:
        return math.inf
    if not isinstance(deadline, (int, float)) or math.isnan(deadline):
        raise ValueError(f"deadline must be a number of seconds or None, got {deadline!r}")
    return max(float(deadline), 0.0)
