"""The balancer as a Keras 3 layer, on every backend of Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from loss_balance.adaloss import as_scheme
from loss_balance.backends.interface import (
    NEGATIVE,
    check_exported,
    check_mask,
    check_names,
    in_order,
    scheme_config,
    scheme_from_config,
    weight_metrics,
)
from loss_balance.backends.keras_ops import (
    XP,
    has_values,
    implied_training,
    is_tensor,
    mean_over_replicas,
    stack,
)
from loss_balance.base import AnyState, Scheme


@keras.saving.register_keras_serializable(package="loss_balance")
class Balancer(keras.layers.Layer):
    """Weighted sum of losses whose weights follow the losses.

        balance = Balancer(AdaLoss(3))
        with tf.GradientTape() as tape:
            loss = balance([loss1, loss2, loss3])

    The state lives in non-trainable weights of the layer, saved with the model or in a checkpoint
    of its own, in float32 whatever the dtype policy. No gradient flows through the weights. The
    first eager call looks at the values once to refuse negative losses.

    A call of your own updates the state unless it says `training=False`. Inside the `call` of
    another layer or model this layer does as that one is told, like Keras' Dropout: give the outer
    `call` a `training` argument and pass it on (JAX's `fit` needs that). With none given it is
    inference. `balance.trainable = False` freezes the state too.

    Under `tf.distribute` the averages follow the mean loss over all replicas that have it (one
    all-reduce), so every replica holds the same weights.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        dtype: of the state, "float32" or "float64", whatever the losses' dtype.
        **options: of every Keras layer: `name`, `trainable`.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
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
        self._checked = False
        for field, value in self.scheme.init(np)._asdict().items():
            # As attributes: what is in a list, a TensorFlow checkpoint leaves out without a word.
            setattr(self, f"state_{field}", self._variable(field, value))
        self.built = True

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
            losses: a sequence or mapping of scalar tensors, or a tensor of shape (num_losses,).
                None is a loss that is absent in this step.
            mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN,
                and its gradient are then left out.
            **options: `training`, default: that of the call this one is part of, else True.

        Raises:
            ValueError: wrong count, shape or names; a negative loss in the first eager call.
        """
        vector, present = self._gather(losses, mask)  # before Keras converts what it finds
        options = {name: value for name, value in options.items() if value is not None}
        if options.get("training", True):
            self._check_first(vector)
        return super().__call__(vector, mask=present, **options)

    def call(self, losses: Any, mask: Any = None, training: bool | None = None) -> Any:
        """As above; `stateless_call` comes here directly."""
        vector, present = self._gather(losses, mask)
        training = implied_training(self) if training is None else training
        if training and self.trainable:
            weights = self._observe(ops.stop_gradient(vector), present)
        else:
            weights = self.loss_weights
        return ops.sum(ops.cast(weights, vector.dtype) * vector)

    def compute_mask(self, *_: Any) -> None:
        """The total has no mask."""

    def compute_output_spec(self, losses: Any, mask: Any = None, **_: Any) -> Any:
        return keras.KerasTensor((), dtype=self._gather(losses, mask)[0].dtype)

    def _gather(self, losses: Any, mask: Any) -> tuple[Any, Any]:
        """The losses as one vector, zero where absent, and which are present (None: all)."""
        ordered = in_order(losses, self.names, self.scheme.num_losses)
        present = None
        if isinstance(ordered, list):
            ordered, present = stack(ordered)
        elif not is_tensor(ordered):
            raise ValueError(f"losses must be tensors, got a {type(ordered).__name__}")
        if "float" not in keras.backend.standardize_dtype(ordered.dtype):
            raise ValueError(f"losses must be real floating point, got {ordered.dtype}")
        if mask is not None:
            mask = ops.convert_to_tensor(mask, dtype="bool")
            check_mask(mask.shape, self.scheme.num_losses)
            ordered = ops.where(mask, ordered, ops.zeros_like(ordered))
            present = mask if present is None else ops.logical_and(present, mask)
        return ordered, present

    def _observe(self, losses: Any, present: Any) -> Any:
        """Updates the state with detached losses and returns the new weights."""
        losses = ops.cast(losses, self.variable_dtype)
        losses, present = mean_over_replicas(losses, present)
        old = self._read()
        new = self.scheme.update(old, losses, XP, present)
        for name, value in new._asdict().items():
            if value is not getattr(old, name):
                getattr(self, f"state_{name}").assign(value)
        return new.weights

    def _read(self) -> AnyState:
        """A copy: PyTorch's backward must not see what a later step writes into the variables."""
        state = self.scheme.init(np)
        return type(state)(*(ops.copy(getattr(self, f"state_{name}")) for name in state._fields))

    def _check_first(self, losses: Any) -> None:
        """Refuses negative losses before the first update, at the price of one wait, once."""
        if self._checked or not has_values(losses):
            return
        values = ops.convert_to_numpy(losses)
        if int(self._read().step) == 0 and (values < 0).any():  # absent ones are zero here
            raise ValueError(NEGATIVE.format(values.tolist()))
        self._checked = True

    @property
    def loss_weights(self) -> Any:
        """Shape (num_losses,), the last step's; `weights`, of any layer, are all its variables."""
        return self._read().weights

    def export_state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays that `import_state` of any backend takes."""
        arrays = {name: ops.convert_to_numpy(x) for name, x in self._read()._asdict().items()}
        return {
            name: np.array(x, dtype=None if x.dtype.kind == "f" else np.int32)
            for name, x in arrays.items()
        }

    def import_state(self, exported: Mapping[str, Any]) -> None:
        """Continues from `export_state()` of any backend; ValueError if it does not fit."""
        for name, value in check_exported(exported, self.scheme)._asdict().items():
            variable = getattr(self, f"state_{name}")
            variable.assign(np.asarray(value, keras.backend.standardize_dtype(variable.dtype)))

    @property
    def metrics(self) -> Any:
        """`metrics()` is `{"loss_weight/<name>": weight}`; a weight at gamma is on the floor.

        Waits for the device: call it as often as you log, not in every step. Keras reads the same
        attribute of every layer as the list of its `keras.metrics`: it is that too, and empty.
        """
        return _Metrics(
            lambda: weight_metrics(ops.convert_to_numpy(self.loss_weights).tolist(), self.names)
        )

    def get_config(self) -> dict[str, Any]:
        names = None if self.names is None else list(self.names)
        own = {"scheme": scheme_config(self.scheme), "names": names, "dtype": self.variable_dtype}
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
