"""When and on what a balancer of PyTorch moves its state: micro-batches, replicas, a first look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loss_balance.backends.interface import negative
from loss_balance.backends.torch import ops as xp
from loss_balance.backends.torch.inputs import eager
from loss_balance.backends.torch.loading import LoadedState
from loss_balance.backends.torch.replicas import Replicas
from loss_balance.backends.torch.state import on_host
from loss_balance.schemes.base import AnyState
from loss_balance.schemes.clock import mean, note


class Place:
    """One call's place among those that make an update."""

    def __init__(self, calls: int, first: Place | None) -> None:
        self.calls = calls  # before it
        self.last = False
        self.first = self if first is None else first
        self.next = self


class Calls:
    """The calls that make one update, and which of them comes now.

    As a chain of places: of a number, a compiler would make one graph each, of `last` it makes two.
    """

    def __init__(self, accumulate: int, calls: int = 0) -> None:
        self.accumulate = accumulate
        self.now = place = Place(0, None)
        for number in range(1, accumulate):
            place.next = Place(number, place.first)
            place = place.next
            if number <= calls:
                self.now = place
        place.last = True

    def __reduce__(self) -> Any:
        return Calls, (self.accumulate, self.now.calls)


class Clock(LoadedState):
    """The part of the balancer that looks at the losses."""

    replicas: Replicas
    _clock: Calls

    @property
    def _calls(self) -> int:
        return self._clock.now.calls

    @_calls.setter
    def _calls(self, calls: int) -> None:
        self._clock = Calls(self.accumulate, calls)

    def due(self, update: bool | None) -> bool:
        if self.accumulate == 1:  # nothing to count
            return update is None or bool(update)
        place = self._clock.now
        now = place.last if update is None else bool(update)
        self._clock.now = place.first if now else place.next
        return now

    def observe(self, losses: Tensor, present: Tensor | None, update: bool | None) -> Tensor:
        """Moves the state by detached losses, or notes them; returns the weights to use."""
        losses = losses.to(self.average.dtype)
        alone, now = self.replicas.alone(), self.due(update)
        if not now:
            pending = self.noted(alone=alone)
            self.note(note(pending, losses, self.scheme, xp, present), alone=alone)
            return self.weights.clone()
        old = self.held()
        # A graph, compiled or captured, for `update=True` is right whatever came before it.
        if alone and (update is None or eager(losses, self.average)) and not self._waiting:
            new = self.scheme.update(old, losses, xp, present)
            self.keep(new)
            return new.weights  # type: ignore[no-any-return]
        pending = note(self.noted(alone=alone), losses, self.scheme, xp, present)
        if not alone:
            pending, old = self.replicas.reduce(pending, old)
        return self._move(pending, old)

    def observe_nothing(self) -> Callable[[], None] | None:
        """A call in which all losses are absent, begun: what is returned ends it."""
        if self.replicas.alone() or not self.due(None):
            return None
        finish = self.replicas.reduce_later(self.noted(alone=False), self.held())

        def end() -> None:
            self._move(*finish())

        return end

    @torch.no_grad()
    def _move(self, pending: Tensor, old: AnyState) -> Tensor:
        """One update, on the mean of what is pending; returns the weights to use."""
        values, there = mean(pending, xp)
        known = torch.compiler.is_compiling() or self.replicas.met or self.replicas.alone()
        if not known and eager(pending, self.average):
            self._check(values, old)  # all replicas hold the same in their hands
            self.replicas.met = True
        new = self.scheme.update(old._replace(pending=torch.zeros_like(pending)), values, xp, there)
        self.clear_own()
        self._waiting = False
        self.keep(new)
        return new.weights  # type: ignore[no-any-return]

    def look(self, losses: Tensor, *, training: bool) -> None:
        """The first look at values, on the host: refuses a state or losses that cannot be.

        Between replicas this is put off to the first update, for all must decide alike.
        """
        if not eager(losses, self.average):
            return
        self.wake(refuse=True)
        self.check_dtype()
        if not self.replicas.talking() or (training and self.replicas.alone()):
            self._check(losses, self.held())
        elif not training:
            self.check_state()
        self._checked = True

    def _check(self, losses: Tensor, state: AnyState) -> None:
        host = on_host(state)
        self.check_state(host)
        begins = not (self.scheme.takes_negative or host.step)
        if begins and bool((losses < 0).any()):
            raise negative(self.scheme, losses.tolist())
