"""One network of an ensemble, and how it is run wherever the executor puts it.

What crosses to another process is a member, the input and a `Link`. In threads the link carries
every answer back as soon as it is ready. Pickled, it becomes a copy without a way back: there the
member runs by its own copy of the countdown, and its best answer comes back as the
result of the call.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from loss_balance.anytime.answers import start
from loss_balance.anytime.driving import Answer, Choice, Countdown, Limits, Stop, drive
from loss_balance.checks import check_finite, check_increasing


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble, with what is known about it.

    Args:
        net: has `anytime(x)`, or is a function that gives its answers one at a time. For
            processes and other machines it must be picklable: a function at the top level of a
            module that loads its network on first use needs least on the way. Torch's gradient
            mode belongs to a thread, so in an executor the function sets it:
            `@torch.inference_mode()` above `def member(x): yield from net.anytime(x)`.
        errors: validation error of each exit; exits beyond the last one are not computed.
        expected_times: seconds from the start of this network to each exit, from
            `anytime.calibrate`. With them an exit that would overrun is not started.

    Raises:
        ValueError: no exits, an error that is not finite, or times that do not fit.
    """

    net: Any
    errors: Sequence[float]
    expected_times: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_finite("errors", self.errors)
        if self.expected_times is not None:
            check_increasing("expected_times", self.expected_times)
            if len(self.expected_times) < len(self.errors):
                raise ValueError(
                    f"expected_times must be one for each of the {len(self.errors)} errors, "
                    f"got {len(self.expected_times)}"
                )

    def longest_step(self, unknown: float) -> float:
        """Expected seconds of the longest exit."""
        times = self.expected_times
        if times is None:
            return unknown
        return max(time - before for before, time in zip([0.0, *times], times, strict=False))


@dataclass(frozen=True)
class Ordinary:
    """An ordinary network, `net(x)`, as an anytime network of one exit."""

    net: Callable[[Any], Any]

    def anytime(self, x: Any) -> Iterator[Any]:
        """The one answer."""
        yield self.net(x)


class Started(NamedTuple):
    """A member runs in the process of `run`."""

    member: int


class Ended(NamedTuple):
    """How a member ended, and the best of its answers."""

    best: Answer | None
    stopped: Stop
    failure: Exception | None


class Link:
    """What `run` and its members share."""

    def __init__(
        self,
        countdown: Countdown,
        cancel: threading.Event | None = None,
        messages: queue.SimpleQueue[Any] | None = None,
    ) -> None:
        self.countdown = countdown
        self.messages = messages
        self.answered = False
        self.ended: set[int] = set()
        self.over: threading.Event = threading.Event()  # run() has returned or is about to
        self.cancel = cancel

    def __reduce__(self) -> tuple[type[Link], tuple[Countdown]]:
        return Link, (self.countdown,)

    @property
    def is_near(self) -> bool:
        """Whether this is the link that `run` made; a pickled copy has no way back to it."""
        return self.messages is not None

    def tell(self, message: Any) -> None:
        """Sends a message to `run`, if there is a way."""
        if self.messages is not None:
            self.messages.put(message)

    def cancelled(self) -> bool:
        return self.over.is_set() or (self.cancel is not None and self.cancel.is_set())

    def needed(self, member: int) -> bool:
        """Whether the first exit of this member is to be computed even if it is late."""
        return not self.answered and self.ended.issuperset(range(member))


def work(link: Link, index: int, member: Member, x: Any, ready: Callable[[Any], object]) -> Ended:
    """Runs one member, wherever this is called."""
    link.tell(Started(index))
    choice = Choice(link.countdown)

    def report(k: int, value: Any, elapsed: float) -> None:
        if not link.is_near and hasattr(value, "detach"):
            value = value.detach()  # torch refuses to send what carries a gradient
        answer = Answer(member.errors[k], elapsed, index, k, value)
        choice.offer(answer)
        link.answered = True
        link.tell(answer)

    times = member.expected_times or ()
    limits = Limits(link.countdown, link.cancelled, None, len(member.errors), times)
    needed = link.needed(index)
    stopped, failure = drive(
        lambda: start(member.net, x), limits, report, needed=needed, ready=ready
    )
    link.ended.add(index)
    return Ended(choice.best, stopped, failure if link.is_near else _portable(failure))


def _portable(error: Exception | None) -> Exception | None:
    """The error itself if it survives pickling; one that does not would take the answer along."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
