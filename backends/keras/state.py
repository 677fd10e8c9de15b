"""The state of the Keras layer: its variables, and the files they are written to."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from loss_balance.backends.fields import IDENTITY, NEW
from loss_balance.backends.identity import exported, fixed_weights
from loss_balance.backends.keras.ops import read
from loss_balance.backends.keras_bases import Layer
from loss_balance.backends.state import StatefulBalancer
from loss_balance.schemes.base import AnyState

PENDING = "pending"  # the one field in which replicas differ


class StateLayer(StatefulBalancer, Layer):
    """A layer whose variables are a scheme's state, which files of weights hold by name.

    Attributes:
        strict_loading: whether files of a scheme with other hyperparameters are refused.
    """

    _notes: bool  # whether there may be losses in `pending`

    def begin_state(self, accumulate: int) -> None:
        """Makes the variables, of `scheme`."""
        self.strict_loading = True
        self._refused: ValueError | None = None
        self._variables_made = False
        self.begin_clock(accumulate)
        for field, value in self.scheme.init(np)._asdict().items():
            # As attributes: what is in a list, a TensorFlow checkpoint leaves out without a word.
            setattr(self, f"state_{field}", self._variable(field, value))
        self.state_calls: Any = self._variable("calls", np.zeros((), np.int32))
        self._variables_made = True
        self._checkpointed: Any = None
        if keras.backend.backend() == "tensorflow":
            from loss_balance.backends.keras.checkpoint import Checkpointed

            self._checkpointed = Checkpointed(self)

    def _variable(self, name: str, value: Any) -> Any:
        # "int": TensorFlow keeps int32 variables off the GPU, where XLA cannot reach them.
        options = {
            "shape": value.shape,
            "dtype": self.variable_dtype if value.dtype.kind == "f" else "int",
            "initializer": lambda _, dtype: ops.convert_to_tensor(value, dtype),
            "trainable": False,
            "autocast": False,
            "name": name,
        }
        if name == PENDING:  # each replica notes its own, without a word to the others
            with keras.name_scope(self.name, caller=self):
                return keras.Variable(**options, aggregation="sum", synchronization="on_read")
        # All replicas write the same value, so the first one's will do.
        return self.add_weight(**options, aggregation="only_first_replica")

    def variable(self, field: str) -> Any:
        """The variable of a field of the state."""
        return getattr(self, f"state_{field}")

    @property
    def loss_weights(self) -> Any:
        """Shape (num_losses,), the last step's; `weights`, of any layer, are all its variables."""
        fixed = fixed_weights(self.scheme)
        if fixed is not None:  # configuration, whatever was loaded
            return ops.convert_to_tensor(np.array(fixed), self.variable_dtype)
        return read(self.state_weights)

    def copied(self, field: str) -> Any:
        """A copy of a field of the state, between steps.

        Outside a replica `pending` is the sum over all workers, for which each has to ask; where no
        call has noted anything it is 0, so that one of them may export, log or save alone.
        """
        if field == PENDING and not self._notes:
            return self._nothing()
        return read(self.variable(field))

    def _nothing(self) -> Any:
        """`pending` where nothing is."""
        return ops.zeros(self.state_pending.shape, self.state_pending.dtype)

    def _read(self, *, pending: bool = True) -> AnyState:
        """A copy: PyTorch's backward must not see what a later step writes into the variables.

        `pending` says whether that is wanted: the usual step has no use for it.
        """
        kind = self.scheme.state_type()
        found: dict[str, Any] = dict.fromkeys(kind._fields)
        for name in kind._fields:
            if name not in ("weights", PENDING) or (pending and name == PENDING):
                found[name] = read(self.variable(name))
        return kind(**found | {"weights": self.loss_weights})

    def _write(self, old: AnyState, new: AnyState) -> None:
        for name, value in new._asdict().items():
            if value is not getattr(old, name):
                self.variable(name).assign(value)

    def read_state(self) -> AnyState:
        return self._on_host(self.copied(PENDING))

    def read_shown(self) -> AnyState:
        return self._on_host(self._nothing())

    def _on_host(self, pending: Any) -> AnyState:
        state = self._read(pending=False)._replace(pending=pending)
        arrays = (ops.convert_to_numpy(x) for x in state)
        found = (np.array(x, dtype=None if x.dtype.kind == "f" else np.int32) for x in arrays)
        return self.scheme.state_type()(*found)

    def write_state(self, state: AnyState) -> None:
        for name, value in state._asdict().items():
            variable = self.variable(name)
            variable.assign(np.asarray(value, keras.backend.standardize_dtype(variable.dtype)))

    def state_dtype(self) -> np.dtype:
        found: np.dtype = np.dtype(keras.backend.standardize_dtype(self.variable_dtype))
        return found

    @property
    def _calls(self) -> int:  # a compiled step counts in a variable
        return int(ops.convert_to_numpy(ops.copy(self.state_calls))) if self._variables_made else 0

    @_calls.setter
    def _calls(self, calls: int) -> None:
        if self._variables_made:
            self.state_calls.assign(calls)

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._refused = None

    def checkpoint_came(self, *, waiting: bool) -> None:
        """Takes note that TensorFlow is about to restore the variables."""
        self._checked, self._warned = False, frozenset()
        self._waiting = waiting

    def has_pending(self) -> bool:
        """Whether there are losses that no update has counted yet; waits for the device."""
        return bool(np.any(ops.convert_to_numpy(self.copied(PENDING))[1]))

    def save_own_variables(self, store: Any) -> None:
        """Writes the fields of the state by name, and whose they are."""
        fields = exported(self.read_state(), self.scheme, self.names, self._calls)
        for name, value in fields.items():
            store[name] = value

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote, or version 0.1; ValueError if it does not fit."""
        fields = self.scheme.state_type()._fields
        given = {name: np.asarray(store[name]) for name in (*fields, IDENTITY) if name in store}
        if not given:  # version 0.1 numbered them
            old = [name for name in fields if name not in NEW]
            numbered = zip(map(str, range(len(old))), old, strict=True)
            given = {name: np.asarray(store[key]) for key, name in numbered if key in store}
        if not given and self._refused is not None:
            raise self._refused  # Keras comes again, with nothing, to what it could not load
        try:
            state, calls = self.adopted(given, strict=self.strict_loading)
        except ValueError as error:
            self._refused = error
            raise
        self.write_state(state)
        self.state_came(state, calls)

    def _trackable_children(self, save_type: str = "checkpoint", **options: Any) -> Any:
        """What TensorFlow saves of it; Keras' other backends never ask."""
        children = super()._trackable_children(save_type, **options)
        return children if save_type == "savedmodel" else children | self._checkpointed.children
