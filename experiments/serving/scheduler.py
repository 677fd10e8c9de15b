"""Who is computed when: the nearest deadline first, in batches, an exit at a time.

No thread, no sleep and no I/O in here; the clock is given. The rules:

- A request is taken if all that wait, and it, can still have a first answer in time, by the
  expected times (`latest_starts`). So what is taken is answered in time, as far as exits take what
  is expected.
- With none at work and none waiting it is taken if its deadline is not over yet: so times that came
  to be expected too long are mended. One that is `alone` is taken then in any case.
- A batch is the nearest deadline and as many after it as leave that true.
- After an exit a member leaves with its answer if the next exit would come after its deadline, or
  could be no better; the others go on.
- The next exit is begun only if those who wait can still be served after it. If not, members with
  a deadline leave with what they have; those without one are kept where they are, and go on once
  there is time. Meanwhile no request without deadline is begun, so one batch at most is kept.
- One whose first answer cannot be in time any more, for exits took longer, is turned away.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from loss_balance.checks import check_count, check_finite
from loss_balance.experiments.serving.batch import Batch, in_time
from loss_balance.experiments.serving.requests import (
    Closing,
    Expired,
    Gone,
    Network,
    Outcome,
    QueueFull,
    Request,
    TooLate,
)
from loss_balance.experiments.serving.times import Times
from loss_balance.experiments.serving.waiting import Waiting, batch_size, latest_starts

Observer = Callable[[int, int, float], None]  # (exit, batch size, seconds) of what was computed


def _unobserved(_exit: int, _batch: int, _seconds: float) -> None:
    """Nobody looks on."""


class Scheduler:
    """The queue, and what is at work. `submit` and `cancel` from any thread, `step` from one.

    Args:
        network: computes.
        times: expected seconds; the largest of its sizes is the largest batch.
        queue: how many may wait.
        errors: validation error of each exit, as for `anytime.predict`.
        clock: seconds, any origin.
        observe: is told of each exit that was computed.

    Raises:
        ValueError: `queue` is no count, or `errors` not one per exit.
    """

    def __init__(
        self,
        network: Network,
        times: Times,
        *,
        queue: int = 64,
        errors: Sequence[float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        observe: Observer = _unobserved,
    ) -> None:
        check_count("queue", queue)
        if errors is not None:
            check_finite("errors", errors)
            if len(errors) != times.exits:
                raise ValueError(f"errors must be one per exit, {times.exits}, got {len(errors)}")
        self.network: Network = network
        self.times: Times = times
        self.queue: int = queue
        self.clock: Callable[[], float] = clock
        self.errors: tuple[float, ...] | None = None if errors is None else tuple(errors)
        self.changed: threading.Condition = threading.Condition()  # guards all that follows
        self._best_exit = (
            times.exits - 1 if errors is None else min(range(len(errors)), key=errors.__getitem__)
        )
        self._observe = observe
        self._waiting = Waiting()
        self._batch: Batch | None = None
        self._kept: Batch | None = None  # members without deadline, until there is time
        self._free_at = -math.inf  # when the exit that is computed now should be ready
        self._closing = False
        self._ended: list[tuple[Request, Outcome]] = []  # to be told once the lock is free

    def __len__(self) -> int:
        """How many wait, nothing of them computed yet."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._batch is None and self._kept is None and not self._waiting

    @property
    def closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._closing

    def check(self, deadline: float, *, alone: bool = False) -> None:
        """Whether a request of that deadline would be taken now.

        Raises:
            Refused: it would not.
        """
        with self.changed:
            self._check(deadline, alone)

    def submit(self, request: Request) -> None:
        """Takes the request; its `done` is called once from then on.

        Raises:
            Refused: it is not taken, and its `done` never called.
        """
        with self.changed:
            self._check(request.deadline, request.alone)
            request.first_chance = self.idle
            self._waiting.add(request)
            self.changed.notify_all()

    def _check(self, deadline: float, alone: bool) -> None:
        if self._closing:
            raise Closing("the service is about to end")
        if len(self._waiting) >= self.queue:
            raise QueueFull(f"no more than {self.queue} requests may wait")
        now = self.clock()
        if deadline == math.inf or (self.idle and (alone or now < deadline)):
            return
        if max(now, self._free_at) > self._latest(self._waiting.deadlines(deadline))[0]:
            raise TooLate("the deadline cannot be kept with what else there is to do")

    def cancel(self, request: Request) -> None:
        """Nothing more is computed for it; its outcome is what it has, or Gone."""
        with self.changed:
            request.gone = True
            self._drop(lambda each: each is request, Gone("nobody waits for it any more"))
            self.changed.notify_all()
        self._tell()

    def close(self, *, drop: bool = False) -> None:
        """Takes no more; what was taken is computed, or, with `drop`, what waits turned away."""
        with self.changed:
            self._closing = True
            if drop:
                self._drop(lambda _: True, Closing("the service ended"))
                for batch in (self._batch, self._kept):
                    for request in batch.members if batch else ():
                        request.gone = True
            self.changed.notify_all()
        self._tell()

    def fail(self, error: Exception) -> None:
        """Takes no more, and ends all with what they have or with the error; as `step` is called.

        For what should not happen: who waits is told even then.
        """
        with self.changed:
            self._closing = True
            self._drop(lambda _: True, error)
            for batch in (self._batch, self._kept):
                if batch is not None:
                    self._leave(batch, lambda _: True, error)
            self._batch = self._kept = None
        self._tell()

    def step(self) -> bool:
        """Computes one exit of one batch; False where there was nothing to do."""
        with self.changed:
            batch = self._batch = self._choose()
            if batch is not None:
                exit_, size, start = batch.exit, len(batch.members), self.clock()
                self._free_at = start + self.times.step(exit_, size)
        self._tell()
        if batch is None:
            return False
        try:
            logits = batch.advance()
            if logits is None and batch.exit == 0:
                raise ValueError("a network must have at least one exit, got none")
        except Exception as error:  # whatever it is, those who wait are told
            self._end(batch, error)
            return True
        if logits is None:
            self._end(batch, ValueError("the network has fewer exits than it had"))
            return True
        at = self.clock()
        given = batch.spread(logits, at, self.errors)
        with self.changed:
            self._free_at = -math.inf
            self.times.observe(exit_, size, at - start)
        self._observe(exit_, size, at - start)
        for request, answer in given:
            request.report(answer)
        return True

    def _end(self, batch: Batch, error: Exception) -> None:
        """All leave the batch: with their answers, or with the error that there is instead."""
        with self.changed:
            self._free_at = -math.inf
            self._leave(batch, lambda _: True, error)
            self._batch = None
        self._tell()

    def _choose(self) -> Batch | None:
        """What is computed next."""
        now = self.clock()
        self._batch = self._let_go(self._batch, now)
        self._kept = self._let_go(self._kept, now)
        self._drop(lambda each: self._hopeless(each, now), Expired("exits took too long"))
        deadlines = self._waiting.deadlines()
        latest = self._latest(deadlines)
        batch = self._batch
        if batch is not None:
            if self._time_for(batch, now, latest[0]):
                return batch
            self._leave(batch, lambda each: each.deadline < math.inf)
            self._kept = batch if batch.members else self._kept
        if self._kept is not None and self._time_for(self._kept, now, latest[0]):
            batch, self._kept = self._kept, None
            return batch
        return self._begin(now, deadlines, latest)

    def _latest(self, deadlines: list[float]) -> list[float]:
        return latest_starts(deadlines, lambda size: self.times.step(0, size), self.times.sizes)

    def _time_for(self, batch: Batch, now: float, latest: float) -> bool:
        """Whether those who wait can still be served after the batch's next exit."""
        return now + self.times.step(batch.exit, len(batch.members)) <= latest

    def _let_go(self, batch: Batch | None, now: float) -> Batch | None:
        """Those leave who have all they can get in time; the batch, if any stay."""
        if batch is None:
            return None
        k = batch.exit
        finished, best = k >= self.times.exits, k > self._best_exit
        self._leave(batch, lambda each: finished or each.gone or (best and not each.streams))
        if not finished:
            staying = in_time(batch.members, now, lambda size: self.times.step(k, size))
            kept = set(map(id, staying))
            self._leave(batch, lambda each: id(each) not in kept)
        return batch if batch.members else None

    def _begin(self, now: float, deadlines: list[float], latest: list[float]) -> Batch | None:
        """A new batch, if anybody waits who may be begun."""
        most = len(self._waiting) if self._kept is None else len(deadlines)
        if most == 0:
            return None
        done = [now + self.times.step(0, n) for n in range(1, min(most, self.times.most) + 1)]
        return Batch(self.network, self._waiting.take(batch_size(done, deadlines, latest)))

    def _hopeless(self, request: Request, now: float) -> bool:
        return not request.first_chance and now + self.times.step(0, 1) > request.deadline

    def _leave(
        self, batch: Batch, leaves: Callable[[Request], bool], error: Exception | None = None
    ) -> None:
        left = batch.leave(leaves)
        self._ended += [(request, request.outcome(error)) for request in left]
        if not batch.members:
            batch.close()

    def _drop(self, unwanted: Callable[[Request], bool], error: Exception) -> None:
        self._ended += [(request, error) for request in self._waiting.remove(unwanted)]

    def _tell(self) -> None:
        """Gives out outcomes, without the lock: `done` may call back."""
        with self.changed:
            ended, self._ended = self._ended, []
        for request, outcome in ended:
            request.done(outcome)
