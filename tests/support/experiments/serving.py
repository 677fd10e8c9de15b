"""A service's world without a network, threads or waiting: time passes where something computes."""

from __future__ import annotations

import heapq
import math
from itertools import count

import numpy as np

from loss_balance.experiments.serving.requests import Refused, Request
from loss_balance.experiments.serving.scheduler import Scheduler
from loss_balance.experiments.serving.times import Times

CLASSES = 3


class World:
    """A clock, and what happens at which moment of it."""

    def __init__(self):
        self.now = 0.0
        self._due, self._number = [], count()

    def clock(self):
        return self.now

    def at(self, moment, happening):
        heapq.heappush(self._due, (moment, next(self._number), happening))

    def pass_by(self, seconds):
        """Time goes on, and what is due meanwhile happens."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            moment, _, happening = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            happening()
        self.now = end

    def run(self, scheduler):
        """Until nothing is left to happen or to compute."""
        while scheduler.step() or self._due:
            if scheduler.idle and self._due:
                self.pass_by(max(self._due[0][0] - self.now, 0.0))


class Network:
    """Whose logits say the image's number and the exit; `stretch()` is how slow it is just now.

    Attributes:
        computed: (exit, numbers in the batch, start, end) of all it did.
        open: generators that are neither ended nor closed.
    """

    def __init__(self, world, times, stretch=lambda: 1.0, fails_at=None):
        self.world, self.times, self.stretch, self.fails_at = world, times, stretch, fails_at
        self.computed, self.open = [], 0

    def anytime(self, images):
        self.open += 1
        try:
            numbers = images[:, 0, 0, 0].copy()
            for exit_ in range(self.times.exits):
                start = self.world.now
                self.world.pass_by(self.times.step(exit_, len(numbers)) * self.stretch())
                self.computed.append((exit_, tuple(map(int, numbers)), start, self.world.now))
                if self.fails_at is not None and len(self.computed) == self.fails_at:
                    raise ArithmeticError("it broke")
                logits = np.zeros((len(numbers), CLASSES))
                logits[:, 0], logits[:, 1] = numbers, exit_
                kept = yield logits
                if kept is not None:
                    numbers = numbers[kept]
        finally:
            self.open -= 1


class Asked:
    """A request, what became of it, and when."""

    def __init__(self, world, scheduler, number, seconds=math.inf, streams=False):
        self.world, self.scheduler = world, scheduler
        self.outcomes, self.reports, self.refused = [], [], None
        self.idle = None  # whether the scheduler was when it came
        image = np.full((1, 1, 1), number, np.float32)
        self.arrival, self.number = world.now, number
        self.request = Request(
            image, world.now + seconds, self._done, report=self.reports.append, streams=streams
        )

    def _done(self, outcome):
        self.outcomes.append((outcome, self.world.now))

    def submit(self):
        self.idle = self.scheduler.idle
        try:
            self.scheduler.submit(self.request)
        except Refused as refusal:
            self.refused = refusal

    @property
    def outcome(self):
        ((outcome, _),) = self.outcomes
        return outcome

    @property
    def returned(self):
        ((_, at),) = self.outcomes
        return at


def times(*firsts_and_steps, sizes=(1, 2, 4)):
    """Of exits that take these seconds for one, and an eighth more for each further doubling."""
    return Times(
        {size: [step * (1 + k / 8) for step in firsts_and_steps] for k, size in enumerate(sizes)}
    )


def made(steps=(1.0, 2.0, 4.0), sizes=(1, 2, 4), stretch=lambda: 1.0, fails_at=None, **options):
    """(world, network, scheduler)"""
    world = World()
    true = times(*steps, sizes=sizes)
    network = Network(world, true, stretch, fails_at)
    expected = times(*steps, sizes=sizes)
    return world, network, Scheduler(network, expected, clock=world.clock, **options)


class Gated:
    """A network for real threads that computes at once; where `gate` is given, once that is set."""

    def __init__(self, exits=3, gate=None, error=None):
        self.exits, self.gate, self.error = exits, gate, error
        self.batches, self.begun = [], 0

    def anytime(self, images):
        self.begun += len(images)
        rows = np.asarray(images).mean(axis=(1, 2, 3))
        for exit_ in range(self.exits):
            if self.gate is not None:
                assert self.gate.wait(60)
            if self.error is not None:
                raise self.error
            self.batches.append((exit_, len(rows)))
            logits = np.zeros((len(rows), CLASSES))
            logits[np.arange(len(rows)), np.rint(rows).astype(int) % CLASSES] = 1.0 + exit_
            kept = yield logits
            if kept is not None:
                rows = rows[kept]
