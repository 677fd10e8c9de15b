"""Several anytime networks under one deadline, in threads, processes or on other machines.

Part of `loss_balance.eann`. An executor is used through `submit`, and its futures through `cancel`,
`running`, `result` and `add_done_callback`, alone.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any, NamedTuple

from loss_balance.anytime.answers import ready
from loss_balance.anytime.driving import Answer, Choice, Clock, Countdown, Prediction, Stop
from loss_balance.checks import check_range
from loss_balance.eann.members import Ended, Link, Member, Started, work

POLL = 0.01  # seconds between two looks at the caller's cancel event


class _Done(NamedTuple):
    member: int
    future: Future[Ended]


def _tell_done(link: Link, member: int, future: Future[Ended]) -> None:
    link.tell(_Done(member, future))


class InThisThread(Executor):
    """Runs each call at once, where it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of `fn(*args, **kwargs)`."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def run(
    members: Sequence[Member],
    x: Any,
    deadline: float | None = None,
    executor: Executor | None = None,
    *,
    cancel: threading.Event | None = None,
    grace: float | None = None,
    clock: Clock = time.monotonic,
    ready: Callable[[Any], object] = ready,
) -> Prediction[Any]:
    """Runs an ensemble and returns its best answer by the deadline.

    Members start first-in-first-out as the executor's workers free up. An answer replaces the
    current one only if its validation error is lower (paper, Section 4), so by the time on its
    watch the result is that of `answer(schedule(...), deadline)`.

    ::

        with ThreadPoolExecutor(2) as pool:
            prediction = run(members, images, deadline=0.2, executor=pool)
        with dask.distributed.Client(address).get_executor() as pool:  # other machines
            prediction = run(members, images, deadline=0.2, executor=pool)

    In this thread the call returns by the deadline plus at most the exit that is being computed;
    in threads at the deadline, and what runs stops after its exit. From processes and other
    machines a member's answers come back when it ends: by itself, with what it has at the
    deadline, or after the exit it is in; start the pool's processes before the first deadline
    counts. Only the first exit of the first member may be late, if there is no other answer.

    Args:
        members: smallest network first.
        x: the input, for every member; picklable for processes.
        deadline: seconds from the call, None for as long as it takes.
        executor: any `concurrent.futures.Executor`; None runs one member after the other here.
            It is not shut down.
        cancel: when it is set, from any thread, the call returns with the best answer it has.
            Members in other processes do not hear of it before the deadline.
        grace: seconds after the deadline to wait for members in other processes, a hard limit
            then even if there is no answer. By default their longest expected exit; where that is
            unknown as long again as the deadline; and without any answer until the first one.
        clock: seconds, any origin. Other processes use their own, `time.monotonic` and the time
            of day (machines should agree on that to well below the deadline).
        ready: as in `anytime.predict`; picklable for processes.

    Returns:
        The answer, with the `member` it is from. If a member raised, or its process died, the
        others go on and `failure` has the exception, several as an ExceptionGroup; each has a
        note with its member's index.

    Raises:
        ValueError: there are no members, or an argument is out of its range.
        Exception: the failure, if there is no answer beside it.
    """
    countdown = Countdown(deadline, clock)
    if not members:
        raise ValueError("members must be one or more networks, got none")
    if grace is not None:
        check_range("grace", grace, 0.0)
    race = _Race(members, Link(countdown, cancel, queue.SimpleQueue()), grace)
    try:
        race.begin(InThisThread() if executor is None else executor, x, ready)
        return race.settle()
    finally:
        race.end()


class _Race:
    """The waiting side of `run`."""

    def __init__(self, members: Sequence[Member], link: Link, grace: float | None) -> None:
        self.members = members
        self.link = link
        self.grace = grace
        self.choice = Choice(link.countdown)
        self.futures: dict[int, Future[Ended]] = {}
        self.pending: set[int] = set()
        self.near: set[int] = set()  # members that run in this process
        self.stops: set[Stop] = set()
        self.failures: dict[int, BaseException] = {}

    def begin(self, executor: Executor, x: Any, ready: Callable[[Any], object]) -> None:
        """Hands all members to the executor, whose queue is first-in-first-out."""
        for i, member in enumerate(self.members):
            try:
                future = executor.submit(work, self.link, i, member, x, ready)
            except Exception as error:  # a pool that broke, a member that cannot be pickled
                self.failures[i] = error
                self.link.ended.add(i)
                continue
            self.futures[i] = future
            self.pending.add(i)
            future.add_done_callback(partial(_tell_done, self.link, i))

    def end(self) -> None:
        """Lets go of all that still runs or waits."""
        self.link.over.set()
        for future in self.futures.values():
            future.cancel()

    def settle(self) -> Prediction[Any]:
        """Takes messages until nothing more is to be expected in time."""
        self._take_all()
        while self.pending:
            if self.link.cancelled():
                self.stops.add("cancelled")
                break
            if (left := self._patience()) <= 0:
                self.stops.add("deadline")
                break
            self._take_all(left if self.link.cancel is None else min(left, POLL))
        self._take_all()
        return self.choice.prediction(self._stopped(), self._failure())

    def _patience(self) -> float:
        """Seconds to wait for the next message, 0 or less if it is time to return."""
        left = self.link.countdown.left()
        if left > 0:
            return left
        if self.choice.best is not None:
            self._drop_queued()
        awaited = self.pending - (self.near if self.choice.best is not None else set())
        return left + self._grace(awaited)

    def _grace(self, awaited: set[int]) -> float:
        if not awaited:
            return 0.0
        if self.grace is not None:
            return self.grace
        if self.choice.best is None:
            return math.inf
        return max(self.members[i].longest_step(self.link.countdown.deadline) for i in awaited)

    def _drop_queued(self) -> None:
        """Cancels what has not begun, in executors that know: Dask's would cancel all."""
        if self.near or any(future.running() for future in self.futures.values()):
            for i in self.pending - self.near:
                self.futures[i].cancel()
        self._take_all()

    def _take_all(self, timeout: float = 0.0) -> None:
        """Takes the messages that are there; waits up to `timeout` seconds for the first."""
        messages = self.link.messages
        assert messages is not None  # only pickled links have none
        longest = threading.TIMEOUT_MAX
        try:
            self._take(messages.get(timeout > 0, min(timeout, longest)))
            while True:
                self._take(messages.get_nowait())
        except queue.Empty:
            return

    def _take(self, message: Any) -> None:
        if isinstance(message, Answer):
            self.choice.offer(message)
        elif isinstance(message, Started):
            self.near.add(message.member)
        else:
            self._finish(message.member, message.future)

    def _finish(self, i: int, future: Future[Ended]) -> None:
        self.pending.discard(i)
        if future.cancelled() and self.link.countdown.left() <= 0:
            self.stops.add("deadline")
        elif future.cancelled():  # not by us: the pool was shut down
            self.failures[i] = CancelledError()
        elif (error := future.exception()) is not None:
            self.failures[i] = error
        else:
            best, stopped, failure = future.result()
            self.stops.add(stopped)
            if best is not None:
                self.choice.offer(best)
            if failure is not None:
                self.failures[i] = failure

    def _stopped(self) -> Stop:
        reasons: tuple[Stop, ...] = ("cancelled", "deadline")
        usual: Stop = "failed" if self.failures else "finished"
        return next((reason for reason in reasons if reason in self.stops), usual)

    def _failure(self) -> BaseException | None:
        failures = sorted(self.failures.items())
        for i, error in failures:
            error.add_note(f"in member {i} of the ensemble")
        if len(failures) < 2:
            return failures[0][1] if failures else None
        numbers = ", ".join(str(i) for i, _ in failures)
        return BaseExceptionGroup(f"members {numbers} failed", [error for _, error in failures])
