"""What the balancers of all frameworks do alike with their state, on the host.

A balancer is a `StatefulBalancer` that can read its state and write it back; the clock, exporting,
importing, resetting and metrics are here.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loss_balance.backends.fields import impossible
from loss_balance.backends.identity import adopted, exported, fresh_state
from loss_balance.backends.logged import keys, labels
from loss_balance.checks import check_count
from loss_balance.schemes.base import UNSEEN, AnyState, Scheme, recently_bad


class StatefulBalancer:
    """What the balancers of all frameworks do alike with their state.

    A subclass sets `scheme`, `names` and calls `begin_clock`; it reads and writes the state.
    """

    scheme: Scheme
    names: tuple[str, ...] | None
    accumulate: int
    _calls: int  # of the present update so far
    _waiting: bool  # whether there are losses in `pending`
    _checked: bool  # whether the state and first losses have been looked at
    _warned: frozenset[str]

    @abstractmethod
    def read_state(self) -> AnyState:
        """The state in NumPy arrays of its own; waits for the device."""

    def read_shown(self) -> AnyState:
        """The state as far as `metrics()` shows it, for which nobody else is asked."""
        return self.read_state()

    @abstractmethod
    def write_state(self, state: AnyState) -> None:
        """Replaces the state by these NumPy arrays."""

    @abstractmethod
    def state_dtype(self) -> np.dtype:
        """NumPy's dtype of the state's floats, to which `write_state` rounds."""

    def adopted(self, given: Any, **options: bool) -> tuple[AnyState, int]:
        """`identity.adopted` for this balancer."""
        return adopted(given, self.scheme, self.names, dtype=self.state_dtype(), **options)

    def begin_clock(self, accumulate: int) -> None:
        """Sets `accumulate`: how many calls make one update."""
        check_count("accumulate", accumulate)
        self.accumulate = int(accumulate)
        self._calls, self._waiting = 0, False
        self._checked, self._warned = False, frozenset()

    def due(self, update: bool | None) -> bool:
        """Whether this call moves the state: as it was told, or every `accumulate`-th time."""
        self._calls += 1
        now = self._calls >= self.accumulate if update is None else bool(update)
        if now:
            self._calls = 0
        return now

    def export_state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays that `import_state` of any framework takes.

        Beside the fields of the scheme's state there is "identity", which says whose state it is.
        Warns of a loss that was bad in more than half of the last 100 updates.
        """
        state = self.read_state()
        self._warn(state)
        return exported(state, self.scheme, self.names, self._calls)

    def import_state(
        self, exported: Mapping[str, Any], *, strict: bool = True, partial: bool = False
    ) -> None:
        """Continues from `export_state()` of any framework; see `adopted` for errors.

        Args:
            exported: what `export_state()` gave.
            strict: False goes on although the scheme or its hyperparameters are others.
            partial: True takes the losses that have a name in both, the others begin fresh.
        """
        state, calls = self.adopted(exported, strict=strict, partial=partial)
        self.write_state(state)
        self.state_came(state, calls)

    def state_came(self, state: AnyState, calls: int) -> None:
        """Takes note that a state of NumPy arrays has come from outside."""
        self._calls = calls
        self._waiting = bool(np.any(state.pending[1]))
        self._checked, self._warned = False, frozenset()

    def reset(self, *losses: str | int) -> None:
        """Begins anew: all, or the named losses (their numbers, where there are no names).

        A loss that is gone for good no longer holds the others' weights.

        Raises:
            ValueError: there is no loss of that name.
        """
        if losses:
            which = selected(losses, self.names, self.scheme.num_losses)
            state = self.scheme.reset(self.read_state(), which, np)
        else:
            state = fresh_state(self.scheme)
        self.write_state(state)
        self.state_came(state, self._calls if losses else 0)

    def read_metrics(self) -> dict[str, float]:
        """See `state_metrics`; warns as `export_state` does."""
        state = self.read_shown()
        self._warn(state)
        return state_metrics(state, self.names, self.scheme)

    def check_state(self, state: AnyState | None = None) -> None:
        """ValueError if the state, or the one given, in NumPy arrays, holds what cannot be."""
        problems = impossible(self.read_state() if state is None else state, self.scheme)
        if problems:
            raise ValueError(
                f"a balancer's state must be possible, got {'; '.join(problems)}: "
                "call reset() to begin anew"
            )

    def _warn(self, state: AnyState) -> None:
        bad = frozenset(bad_names(state, self.names))
        if bad - self._warned:
            warn_of_bad(sorted(bad - self._warned))
        self._warned = bad


def selected(losses: Sequence[str | int], names: Sequence[str] | None, count: int) -> np.ndarray:
    """A mask, shape (count,), of the named losses; ValueError for a name that is not there."""
    known = labels(names, count)
    unknown = [loss for loss in losses if str(loss) not in known]
    if unknown:
        raise ValueError(f"losses to reset must be among {list(known)}, got {unknown}")
    wanted = {str(loss) for loss in losses}
    return np.array([label in wanted for label in known])


def state_metrics(
    state: AnyState, names: Sequence[str] | None = None, scheme: Scheme | None = None
) -> dict[str, float]:
    """`loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`, for any logger.

    The average of a loss not seen yet is NaN; schemes that keep none have no such entries. Without
    names the losses are 0, 1, ... Characters that a logger would refuse, MLflow among them all
    but letters, digits, "_", "-", ".", " " and "/", are "_" in the keys.
    """
    shown = {"weight": state.weights, "skipped": state.skipped}
    if scheme is None or scheme.averages:
        average = np.asarray(state.average)
        shown["average"] = np.where(average == UNSEEN, math.nan, average)
    found = {}
    for kind in ("weight", "average", "skipped"):
        if kind in shown:
            values = np.asarray(shown[kind])
            for key, value in zip(keys(names, len(values)), values.tolist(), strict=True):
                found[f"loss_{kind}/{key}"] = float(value)
    return found


def bad_names(state: AnyState, names: Sequence[str] | None) -> list[str]:
    """The losses that were bad in more than half of the last 100 updates."""
    bad = np.asarray(recently_bad(np.asarray(state.recent)))
    return [label for label, is_bad in zip(labels(names, len(bad)), bad, strict=True) if is_bad]


def warn_of_bad(names: Sequence[str]) -> None:
    """One warning that names the losses of `bad_names`, if there are any."""
    if names:
        warnings.warn(
            f"losses {', '.join(names)}: NaN, infinite or negative in more than half of the last "
            "100 updates; their averages and weights stand still",
            stacklevel=4,
        )
