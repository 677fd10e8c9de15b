"""AdaLoss as a Flax NNX module that keeps its state."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from loss_balance.backends.fields import IDENTITY
from loss_balance.backends.identity import identity
from loss_balance.backends.interface import (
    check_equilibrium,
    check_names,
    check_priorities,
    exit_index,
    in_order,
)
from loss_balance.backends.jax import forks, functions
from loss_balance.backends.jax.replicas import check_copies
from loss_balance.backends.state import StatefulBalancer
from loss_balance.equilibrium import STRENGTH, TEMPERATURE, check_pull
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.averaging import Schedule
from loss_balance.schemes.base import AnyState, Scheme

# Not an attribute of the module, which would be part of what `nnx.jit` compiles for.
_WARNED: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


class BalanceState(nnx.Variable[Any]):
    """A balancer's running state, as `nnx.BatchStat` is a batch norm's: no parameter."""


class Balancer(StatefulBalancer, nnx.Module):
    """`balance` as a Flax NNX module that keeps its state.

    ::

        balance = Balancer(AdaLoss(3))
        loss = balance([loss1, loss2, loss3])

    The state lives in Variables of type `BalanceState`, so `nnx.split` and `nnx.state` tell it from
    parameters, and `nnx.jit` and `nnx.grad` carry its updates out; as with batch norm, make it part
    of the model or pass it to the transformed function. `eval()` freezes it.

    A checkpoint of the Variables says whose state it is (`identity`). An eager call, `metrics()`
    and `export_state()` refuse that of another scheme or other names; `adopt()` takes it over, with
    losses matched by name, and one of version 0.1, which lacks some of the Variables.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        priorities: factors of the losses, as in `balance`; default: 1.
        dtype: of the state, float32 or float64, whatever the losses' dtype.
        axis_name: as in `balance`.
        equilibrium: as in `balance`; `fork` then goes where each exit branches off.
        pull: as in `fork`.
    """

    average: BalanceState
    weights: BalanceState
    step: BalanceState
    skipped: BalanceState
    recent: BalanceState
    pending: BalanceState
    identity: BalanceState

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        priorities: Sequence[float] | None = None,
        dtype: Any = jnp.float32,
        axis_name: Hashable | None = None,
        equilibrium: bool = False,
        pull: float = 1.0,
    ) -> None:
        self.scheme: Scheme = as_scheme(scheme)
        self.names: tuple[str, ...] | None = check_names(names, self.scheme.num_losses)
        self.priorities: tuple[float, ...] | None = check_priorities(
            priorities, self.scheme.num_losses
        )
        self.axis_name = axis_name
        self.equilibrium: bool = bool(equilibrium)
        self.pull: float = check_pull(pull)
        self.use_running_average: bool = False  # what eval() and train() set, as in BatchNorm
        for name, value in functions.init(self.scheme, dtype)._asdict().items():
            setattr(self, name, BalanceState(value))
        self.identity = BalanceState(jnp.asarray(self._whose()))

    def __call__(
        self,
        losses: Any,
        mask: Any = None,
        *,
        priorities: Any = None,
        update: Any = True,
        training: bool | None = None,
        norms: Any = None,
    ) -> Array:
        """The weighted sum; updates the state in training mode.

        Arguments and errors as in `balance`, but a mapping needs the balancer's `names`;
        `priorities` stand in place of the balancer's own, and `training` in that of its mode.
        """
        if isinstance(losses, Mapping):
            losses = in_order(losses, self.names, self.scheme.num_losses)
        if training is None:
            training = not self.use_running_average
        if not isinstance(self.identity.get_value(), jax.core.Tracer):
            self._check_identity()
        check_equilibrium(self.equilibrium, priorities)
        if priorities is None and not self.equilibrium:  # where the forks have them
            priorities = self.priorities
        total, state = functions.balance(
            losses,
            self.state,
            self.scheme,
            self.axis_name,
            mask=mask,
            priorities=priorities,
            update=update,
            training=training,
            equilibrium=self.equilibrium,
            norms=norms,
        )
        if training:
            self._keep(state)
        return total

    def fork(self, features: Any, index: int | str, probe: Array | None = None) -> tuple[Any, Any]:
        """The function `fork`, by the state that the module has when this is called."""
        place = exit_index(index, self.names, self.scheme.num_losses, equilibrium=self.equilibrium)
        return forks.fork(
            features,
            place,
            self.state,
            self.scheme,
            priorities=self.priorities,
            probe=probe,
            pull=self.pull,
        )

    def guidance(
        self,
        logits: Sequence[Array] | Array,
        strength: float | Schedule = STRENGTH,
        temperature: float = TEMPERATURE,
    ) -> Array:
        """The function `guidance`, by the state that the module has when this is called.

        loss = balance.guidance(logits) + balance(losses)
        """
        return forks.guidance(logits, self.state, self.scheme, strength, temperature)

    @property
    def state(self) -> AnyState:
        """What the functions of this package take, now."""
        kind = self.scheme.state_type()
        return kind(*(getattr(self, name).get_value() for name in kind._fields))

    def _keep(self, state: AnyState) -> None:
        for name, value in state._asdict().items():
            getattr(self, name).set_value(value)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Sets what `nnx.view` asks for: True freezes the state."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def metrics(self) -> dict[str, float]:
        """The numbers of the function `metrics`, under the balancer's names; warns once."""
        return self.read_metrics()

    def adopt(
        self, restored: Mapping[str, Any], *, strict: bool = True, partial: bool = False
    ) -> None:
        """Takes over the Variables of a checkpoint, restored as a mapping of arrays by name.

        Args:
            restored: say `checkpointer.restore(path)` without a target; a Variable may stand for
                its array. Names that only version 0.1 had or lacked are no error.
            strict: as in `import_state`.
            partial: as in `import_state`.
        """
        arrays = {name: np.asarray(_value(x)) for name, x in dict(restored).items()}
        self.import_state(arrays, strict=strict, partial=partial)

    def read_state(self) -> AnyState:
        self._check_identity()
        state = self.state
        check_copies(state)
        return type(state)(*(np.array(value) for value in state))

    def write_state(self, state: AnyState) -> None:
        like = functions.init(self.scheme, self.average.get_value().dtype)
        pairs = zip(state, like, strict=True)
        self._keep(type(like)(*(jnp.array(new, old.dtype) for new, old in pairs)))
        self.identity.set_value(jnp.asarray(self._whose()))

    def state_dtype(self) -> np.dtype:
        found: np.dtype = np.dtype(self.average.get_value().dtype)
        return found

    def state_came(self, state: AnyState, calls: int) -> None:
        """Nothing to remember: every call is told whether it is an update."""
        del state, calls
        self._warned = frozenset()

    @property
    def _calls(self) -> int:  # type: ignore[override]  # no count: a jitted call cannot keep one
        return 0

    @property
    def _warned(self) -> frozenset[str]:
        return _WARNED.get(self, frozenset())

    @_warned.setter
    def _warned(self, names: frozenset[str]) -> None:
        _WARNED[self] = names

    def _whose(self) -> np.ndarray:
        return identity(self.scheme, self.names)

    def _check_identity(self) -> None:
        """ValueError if the Variables are those of another scheme or of other names."""
        found = np.asarray(self.identity.get_value())
        if found.tobytes() == self._whose().tobytes():
            return
        state = self.state
        arrays = {name: np.asarray(x) for name, x in state._asdict().items()}
        self.adopted({**arrays, IDENTITY: found})  # names what differs
        raise ValueError(
            f"the state must be in the order of the names {list(self.names or ())}: "
            "adopt() puts a restored one into it"
        )


def _value(x: Any) -> Any:
    return x.get_value() if isinstance(x, nnx.Variable) else x
