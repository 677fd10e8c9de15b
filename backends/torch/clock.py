"""When and on what a balancer of PyTorch moves its state: micro-batches, replicas, a first look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_balance.backends.interface import negative
from loss_balance.backends.torch import ops, ops_seen
from loss_balance.backends.torch.inputs import eager
from loss_balance.backends.torch.known import AllSeen
from loss_balance.backends.torch.loading import LoadedState
from loss_balance.backends.torch.replicas import Replicas
from loss_balance.backends.torch.state import on_host, to_numpy
from loss_balance.schemes.base import AnyState
from loss_balance.schemes.clock import mean, note


class Place:
    """One call's place among those that make an update."""

    def __init__(self, calls: int, first: Place | None) -> None:
        self.calls = calls  # before it
        self.last = False
        self.first: Place = self if first is None else first
        self.next = self


class Calls:
    """The calls that make one update, and which of them comes now.

    As a chain of places: of a number, a compiler would make one graph each, of `last` it makes two.
    """

    def __init__(self, accumulate: int, calls: int = 0) -> None:
        self.accumulate = accumulate
        place = Place(0, None)
        self.now: Place = place
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
    known: AllSeen
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

    def read_state(self) -> AnyState:
        state = super().read_state()
        if self.scheme.has_seen_all(
            state.average, np.zeros(()), np
        ):  # whoever waits may as well look
            self.known.note(self.average)
        return state

    def observe(
        self, losses: Tensor, present: Tensor | None, update: bool | None, *, last_unseen: bool
    ) -> Tensor:
        """Moves the state by detached losses, or notes them; returns the weights to use.

        `last_unseen` says that with these losses every one has been seen.
        """
        old = self.held()
        if losses.dtype != old.average.dtype:
            losses = losses.to(old.average.dtype)
        usual = update is None and present is None and self.accumulate == 1 and not self._waiting
        known = not torch.compiler.is_compiling() and self.known.holds(old.average)
        if usual and known and eager(losses):
            return self._short_step(old, losses)
        alone, now = self.replicas.alone(), self.due(update)
        if not now:
            pending = self.noted(alone=alone)
            self.note(note(pending, losses, self.scheme, ops, present), alone=alone)
            return self.weights.clone()
        # A graph, compiled or captured, for `update=True` is right whatever came before it.
        if alone and (update is None or eager(losses, old.average)) and not self._waiting:
            return self._step(old, losses, present, last_unseen=last_unseen)
        pending = note(self.noted(alone=alone), losses, self.scheme, ops, present)
        if not alone:
            pending, old = self.replicas.reduce(pending, old)
        return self._move(pending, old)

    def _step(
        self, old: AnyState, losses: Tensor, present: Tensor | None, *, last_unseen: bool
    ) -> Tensor:
        """One update on the losses of this call alone; returns the weights to use."""
        known = last_unseen
        if not torch.compiler.is_compiling():
            known = known or self.known.holds(old.average)
        new = self.scheme.update(old, losses, ops, present)
        self.keep(old, new)
        if known:
            self.known.note(old.average)
        return new.weights  # type: ignore[no-any-return]

    def _short_step(self, old: AnyState, losses: Tensor) -> Tensor:
        """`_step` where all losses are there and have been before, in few calls.

        In a training step the interpreter's own code is cold, and a call costs as much as a kernel.
        """
        new = self.scheme.update(old, losses, ops_seen)
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
        with torch.no_grad():  # a scheme of one's own may have parameters
            torch._foreach_copy_([a for a, _ in changed], [b for _, b in changed])
        self.known.go_on()
        return new.weights  # type: ignore[no-any-return]

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
        values, there = mean(pending, ops)
        known = torch.compiler.is_compiling() or self.replicas.met or self.replicas.alone()
        if not known and eager(pending, self.average):
            self._check(values, old)  # all replicas hold the same in their hands
            self.replicas.met = True
        new = self.scheme.update(
            old._replace(pending=torch.zeros_like(pending)), values, ops, there
        )
        self.clear_own()
        self._waiting = False
        self.keep(self.held(), new)
        return new.weights  # type: ignore[no-any-return]

    def look(self, losses: Tensor, *, training: bool) -> bool:
        """The first look at values, on the host: refuses a state or losses that cannot be.

        Between replicas this is put off to the first update, for all must decide alike. True if
        with these losses every one has been seen, as far as is known.
        """
        seen = False
        if not eager(losses, self.average):
            return seen
        self.wake(refuse=True)
        self.check_dtype()
        if not self.replicas.talking() or (training and self.replicas.alone()):
            seen = self._check(losses, self.held())
        elif not training:
            self.check_state()
        self._checked = True
        return seen

    def _check(self, losses: Tensor, state: AnyState) -> bool:
        host = on_host(state)
        self.check_state(host)
        values = to_numpy(losses)
        if not (self.scheme.takes_negative or host.step) and (values < 0).any():
            raise negative(self.scheme, values.tolist())
        return self.scheme.has_seen_all(host.average, values, np)
