"""What is asked of a service, what comes back, and why a request may be turned away.

Times are seconds of the service's clock; a deadline is a moment on it, infinite where there is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Network(Protocol):
    """What a service needs of a network."""

    def anytime(self, images: NDArray[np.float32]) -> Generator[NDArray[Any], Any, None]:
        """Logits (B, classes) of images (B, H, W, C), an exit at a time.

        `send(positions)` goes on with these samples of the current batch and returns their next
        logits; None goes on with all.
        """


class Answer(NamedTuple):
    """What one exit says to one request."""

    exit: int  # from 0
    logits: NDArray[Any]  # (classes,)
    at: float  # when it was there
    batch: int  # how many requests the exit was computed for


class Refused(Exception):  # noqa: N818 (a verdict, not a fault)
    """The request is not taken; nothing was done for it."""


class QueueFull(Refused):
    """As many wait as may wait."""


class TooLate(Refused):
    """Its first answer, or that of one who waits already, would come after the deadline."""


class Expired(TooLate):
    """It was taken, but exits took longer than expected, and no answer in time is possible now."""


class Closing(Refused):
    """The service is about to end."""


class Gone(Exception):  # noqa: N818
    """Whoever asked no longer waits."""


Outcome = Answer | Exception  # Refused, Gone, or what the network raised


def _ignore(_: Answer) -> None:
    """Nobody listens to the answers on the way."""


@dataclass(eq=False)  # eq: two requests with equal images are two
class Request:
    """One image, until it has its outcome.

    Attributes:
        image: standardised, (H, W, C).
        deadline: when the answer is wanted.
        done: is called once, with the outcome, from the thread that computes.
        report: is called with each answer as it comes; only `streams` gives sense to it.
        streams: whether every exit is wanted, also those that are no better than earlier ones.
        alone: nobody else asks just now, so it is answered however late.
    """

    image: NDArray[np.float32]
    deadline: float
    done: Callable[[Outcome], None]
    report: Callable[[Answer], None] = _ignore
    streams: bool = False
    alone: bool = False
    best: Answer | None = field(default=None, init=False)
    first_chance: bool = field(default=False, init=False)  # taken while idle: computed in any case
    gone: bool = field(default=False, init=False)

    def offer(self, answer: Answer, errors: tuple[float, ...] | None) -> None:
        """Keeps the answer if it is the better one: the rule of `anytime.predict`.

        One in time goes before one that is late. Of two in time the one of less validation error,
        where errors are known, else the later one.
        """
        best = self.best
        if best is None or (
            answer.at <= self.deadline
            and (errors is None or errors[answer.exit] < errors[best.exit])
        ):
            self.best = answer

    def outcome(self, otherwise: Exception | None = None) -> Outcome:
        """The best answer, or what stands for it where no exit has answered."""
        found = otherwise if self.best is None else self.best
        assert found is not None
        return found
