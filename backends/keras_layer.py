"""The balancer as a Keras 3 layer, on every backend of Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from loss_balance.adaloss import as_scheme
from loss_balance.backends.identity import IDENTITY, adopted
from loss_balance.backends.interface import (
    check_names,
    check_priorities,
    check_vector,
    in_order,
    negative,
    scheme_config,
    scheme_from_config,
)
from loss_balance.backends.keras_ops import (
    XP,
    has_values,
    implied_training,
    is_tensor,
    replicas,
    stack,
    sum_over_replicas,
)
from loss_balance.backends.state import StatefulBalancer
from loss_balance.base import AnyState, Scheme
from loss_balance.clock import mean, note, settle


@keras.saving.register_keras_serializable(package="loss_balance")
class Balancer(StatefulBalancer, keras.layers.Layer):
    """Weighted sum of losses whose weights follow the losses.

        balance = Balancer(AdaLoss(3))
        with tf.GradientTape() as tape:
            loss = balance([loss1, loss2, loss3])

    The state lives in non-trainable weights of the layer, saved with the model or in a checkpoint
    of its own, in float32 whatever the dtype policy. Files of weights say whose they are, and those
    of another scheme, other hyperparameters or other names are refused on loading, by what differs
    (`strict_loading = False` takes other hyperparameters all the same). No gradient flows through
    the weights. The first eager call looks at the values once.

    A call of your own updates the state unless it says `training=False`. Inside the `call` of
    another layer or model this layer does as that one is told, like Keras' Dropout: give the outer
    `call` a `training` argument and pass it on (JAX's `fit` needs that). With none given it is
    inference. `balance.trainable = False` freezes the state too.

    Under `tf.distribute` the averages follow the mean loss over all replicas that have it (one
    all-reduce), so every replica holds the same weights.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        priorities: factors of the losses, >= 0, multiplied with the weights after these were
            computed from the losses as they are; default: 1. A coefficient that a loss is
            multiplied by beforehand would be undone by the balance; and to favour the last loss
            within the balance there is AdaLoss's `final_weight`.
        accumulate: how many calls make one update, on the mean of their losses, as many
            micro-batches make one step of the optimiser (`gradient_accumulation_steps`).
        dtype: of the state, "float32" or "float64", whatever the losses' dtype.
        **options: of every Keras layer: `name`, `trainable`.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        priorities: Sequence[float] | None = None,
        accumulate: int = 1,
        dtype: Any = "float32",
        **options: Any,
    ) -> None:
        dtype = keras.backend.standardize_dtype(dtype)
        if dtype not in ("float32", "float64"):  # the mean of a narrower one stalls
            raise ValueError(f"the state's dtype must be float32 or float64, got {dtype}")
        super().__init__(dtype=dtype, autocast=False, **options)
        self.supports_masking = True  # `mask` says which losses are there
        self.scheme = as_scheme(scheme)
        self.names = check_names(names, self.scheme.num_losses)
        self.priorities = check_priorities(priorities, self.scheme.num_losses)
        self.strict_loading = True
        self._refused: ValueError | None = None
        self._variables_made = False
        self.begin_clock(accumulate)
        self._notes = self.accumulate > 1  # whether there may be losses in `pending`
        for field, value in self.scheme.init(np)._asdict().items():
            # As attributes: what is in a list, a TensorFlow checkpoint leaves out without a word.
            setattr(self, f"state_{field}", self._variable(field, value))
        self.state_calls = self._variable("calls", np.zeros((), np.int32))
        self._variables_made = self.built = True

    def _variable(self, name: str, value: Any) -> Any:
        # "int": TensorFlow keeps int32 variables off the GPU, where XLA cannot reach them. All
        # replicas write the same value, so the first one's will do.
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=self.variable_dtype if value.dtype.kind == "f" else "int",
            initializer=lambda _, dtype: ops.convert_to_tensor(value, dtype),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def __call__(self, losses: Any, mask: Any = None, **options: Any) -> Any:
        """The weighted sum, a scalar in the losses' dtype; updates the state in training.

        Args:
            losses: scalars in any iterable or mapping, or a tensor of shape (num_losses,). None or
                a number 0 is a loss that is absent in this step; if all are, the total is 0.
            mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN,
                and its gradient are then left out. A NaN that arises before, as in a mean over no
                elements, still has a NaN for its gradient: divide by `ops.maximum(count, 1)`.
            **options: `priorities`, shape (num_losses,), in place of the layer's own in this call.
                `update`, a bool, traced or not: False only notes the losses, for the mean that the
                next update takes; default: True at every `accumulate`-th call. `training`, default:
                that of the call this one is part of, else True; False looks at nothing, say where a
                step is recomputed.

        Raises:
            ValueError: wrong count, shape or names; in the first eager call a negative loss, if the
                scheme takes none, or a state that cannot be.
        """
        vector, present = self._gather(losses, mask)  # before Keras converts what it finds
        options = {name: value for name, value in options.items() if value is not None}
        if "priorities" in options:
            options["priorities"] = self._factors(options["priorities"])
        if options.get("training", True):
            self._check_first(vector)
        return super().__call__(vector, mask=present, **options)

    def call(
        self,
        losses: Any,
        mask: Any = None,
        priorities: Any = None,
        update: Any = None,
        training: bool | None = None,
    ) -> Any:
        """As above; `stateless_call` comes here directly."""
        vector, present = self._gather(losses, mask)
        training = implied_training(self) if training is None else training
        if training and self.trainable:
            weights = self._observe(ops.stop_gradient(vector), present, update)
        else:
            weights = self.loss_weights
        factors = self._factors(self.priorities if priorities is None else priorities)
        if factors is not None:
            weights = weights * factors
        wide = keras.backend.result_type(weights.dtype, vector.dtype)  # float16 may be too narrow
        total = ops.sum(ops.cast(weights, wide) * ops.cast(vector, wide))
        return ops.cast(total, vector.dtype)

    def compute_mask(self, *_: Any) -> None:
        """The total has no mask."""

    def compute_output_spec(self, losses: Any, mask: Any = None, **_: Any) -> Any:
        return keras.KerasTensor((), dtype=self._gather(losses, mask)[0].dtype)

    def _gather(self, losses: Any, mask: Any) -> tuple[Any, Any]:
        """The losses as one vector, zero where absent, and which are present (None: all)."""
        count = self.scheme.num_losses
        ordered = in_order(losses, self.names, count)
        present = None
        if isinstance(ordered, list):
            ordered, present = stack(ordered, self.variable_dtype)
        elif not is_tensor(ordered):
            ordered = ops.convert_to_tensor(ordered)
        if "float" not in keras.backend.standardize_dtype(ordered.dtype):
            raise ValueError(f"losses must be real floating point, got {ordered.dtype}")
        if mask is not None:
            mask = ops.convert_to_tensor(mask, dtype="bool")
            check_vector("a mask", mask.shape, count)
            ordered = ops.where(mask, ordered, ops.zeros_like(ordered))
            present = mask if present is None else ops.logical_and(present, mask)
        return ordered, present

    def _factors(self, priorities: Any) -> Any:
        if priorities is None:
            return None
        factors = ops.convert_to_tensor(priorities, dtype=self.variable_dtype)
        check_vector("priorities", factors.shape, self.scheme.num_losses)
        return factors

    def _observe(self, losses: Any, present: Any, update: Any) -> Any:
        """Updates the state with detached losses and returns the weights to use."""
        losses = ops.cast(losses, self.variable_dtype)
        old = self._read()
        now = self._now(update)
        if now is None and not self._notes:
            new = self._directly(old, losses, present)
        else:
            noted = note(ops.zeros_like(old.pending), losses, self.scheme, XP, present)
            pending = old.pending + sum_over_replicas(noted)
            new = settle(self.scheme, old, pending, XP, update=True if now is None else now)
        for name, value in new._asdict().items():
            if value is not getattr(old, name):
                getattr(self, f"state_{name}").assign(value)
        return new.weights

    def _directly(self, old: AnyState, losses: Any, present: Any) -> AnyState:
        """The next state where every call is an update and nothing is ever noted."""
        if replicas() == 1:
            return self.scheme.update(old, losses, XP, present)
        noted = note(ops.zeros_like(old.pending), losses, self.scheme, XP, present)
        values, there = mean(sum_over_replicas(noted), XP)
        return self.scheme.update(old, values, XP, there)

    def _now(self, update: Any) -> Any:
        """Whether this call moves the state, None where every one does; counts the calls."""
        if update is not None:
            self._notes = True
            self.state_calls.assign(0)
            return update
        if self.accumulate == 1:
            return None
        calls = ops.copy(self.state_calls) + 1
        now = calls >= self.accumulate
        self.state_calls.assign(ops.where(now, ops.zeros_like(calls), calls))
        return now

    def _read(self) -> AnyState:
        """A copy: PyTorch's backward must not see what a later step writes into the variables."""
        kind = self.scheme.state_type()
        return kind(*(ops.copy(getattr(self, f"state_{name}")) for name in kind._fields))

    def _check_first(self, losses: Any) -> None:
        """Refuses a state that cannot be, and negative losses before the first update; once."""
        if self._checked or not has_values(losses):
            return
        self.check_state()
        values = ops.convert_to_numpy(losses)
        first = int(self.read_state().step) == 0 and not self.scheme.takes_negative
        if first and (values < 0).any():  # absent ones are zero here
            raise negative(self.scheme, values.tolist())
        self._checked = True

    @property
    def loss_weights(self) -> Any:
        """Shape (num_losses,), the last step's; `weights`, of any layer, are all its variables."""
        return self._read().weights

    def read_state(self) -> AnyState:
        arrays = (ops.convert_to_numpy(x) for x in self._read())
        found = (np.array(x, dtype=None if x.dtype.kind == "f" else np.int32) for x in arrays)
        return self.scheme.state_type()(*found)

    def write_state(self, state: AnyState) -> None:
        for name, value in state._asdict().items():
            variable = getattr(self, f"state_{name}")
            variable.assign(np.asarray(value, keras.backend.standardize_dtype(variable.dtype)))

    @property
    def _calls(self) -> int:  # type: ignore[override]  # a compiled step counts in a variable
        return int(ops.convert_to_numpy(ops.copy(self.state_calls))) if self._variables_made else 0

    @_calls.setter
    def _calls(self, calls: int) -> None:
        if self._variables_made:
            self.state_calls.assign(calls)

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._refused = None
        self._notes = self._notes or self._waiting

    def save_own_variables(self, store: Any) -> None:
        """Writes the fields of the state by name, and whose they are."""
        for name, value in self.export_state().items():
            store[name] = value

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote, or version 0.1; ValueError if it does not fit."""
        fields = self.scheme.state_type()._fields
        given = {name: np.asarray(store[name]) for name in (*fields, IDENTITY) if name in store}
        if not given:  # version 0.1 numbered them
            old = [name for name in fields if name not in ("recent", "pending")]
            numbered = zip(map(str, range(len(old))), old, strict=True)
            given = {name: np.asarray(store[key]) for key, name in numbered if key in store}
        if not given and self._refused is not None:
            raise self._refused  # Keras comes again, with nothing, to what it could not load
        try:
            state, calls = adopted(given, self.scheme, self.names, strict=self.strict_loading)
        except ValueError as error:
            self._refused = error
            raise
        self.write_state(state)
        self.state_came(state, calls)

    @property
    def metrics(self) -> Any:
        """`metrics()` is `loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`.

        A weight at gamma is on AdaLoss's floor. Warns, once, of losses that were bad in more than
        half of the last 100 updates. Waits for the device: call it as often as you log, not in
        every step. Keras reads the same attribute of every layer as the list of its
        `keras.metrics`: it is that too, and empty.
        """
        return _Metrics(self.read_metrics)

    def get_config(self) -> dict[str, Any]:
        names = None if self.names is None else list(self.names)
        own = {
            "scheme": scheme_config(self.scheme),
            "names": names,
            "priorities": self.priorities,
            "accumulate": self.accumulate,
            "dtype": self.variable_dtype,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Balancer:
        return cls(**{**config, "scheme": scheme_from_config(config["scheme"])})


class _Metrics(list[Any]):
    """A layer's own list of Keras metrics, always empty, and what calling it returns."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        super().__init__()
        self.read = read

    def __call__(self) -> dict[str, float]:
        return self.read()
