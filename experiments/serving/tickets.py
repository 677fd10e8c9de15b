"""A request as the event loop sees it, while another thread computes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.serving.requests import Answer, Outcome, Request
from loss_balance.experiments.serving.scheduler import Scheduler

Event = tuple[bool, Outcome]  # (whether it is the last one, what came)


class Ticket:
    """Made, and awaited, in the event loop.

    Args:
        image: standardised, (H, W, C).
        deadline: when the answer is wanted, on the scheduler's clock.
        streams, alone: as of `Request`.

    Raises:
        Refused: the scheduler does not take it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        image: NDArray[np.float32],
        deadline: float,
        *,
        streams: bool,
        alone: bool,
    ) -> None:
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ended = False
        self.request: Request = Request(image, deadline, self._done, streams=streams, alone=alone)
        if streams:
            self.request.report = self._report
        scheduler.submit(self.request)

    async def outcome(self) -> Outcome:
        """What it ends with."""
        async for last, found in self:
            if last:
                return found
        raise AssertionError("a request has an outcome")

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self._ended:
            last, found = await self._events.get()
            self._ended = last
            yield last, found

    def leave(self) -> bool:
        """Nobody waits any more; False, and without effect, once it has ended."""
        if self._ended:
            return False
        self._scheduler.cancel(self.request)
        return True

    def _done(self, outcome: Outcome) -> None:
        self._put((True, outcome))

    def _report(self, answer: Answer) -> None:
        self._put((False, answer))

    def _put(self, event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it all who wait
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
