"""What the Keras balancers need beyond `keras.ops`.

A NumPy-like namespace, and the few questions that each backend answers in its own way; the one that
Keras runs on is imported then, and no other.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.saving.serialization_lib import (
    get_shared_object,
    record_object_after_deserialization,
)

from loss_balance.backends.interface import check_scalars


class _Ops:
    """`keras.ops` under the few names of NumPy that it lacks or takes more narrowly."""

    int32 = "int32"

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)

    @staticmethod
    def add(count: Any, more: Any) -> Any:
        return ops.add(count, ops.cast(more, count.dtype))

    @staticmethod
    def asarray(value: Any, dtype: Any = None) -> Any:
        return ops.convert_to_tensor(value, dtype)

    @staticmethod
    def clip(x: Any, low: float, high: float) -> Any:  # Keras on PyTorch rounds them to float32
        return ops.clip(x, _like(low, x), _like(high, x))

    @staticmethod
    def where(condition: Any, x: Any, y: Any) -> Any:  # likewise
        return ops.where(condition, _like(x, y), _like(y, x))

    @staticmethod
    def minimum(x: Any, y: Any) -> Any:  # likewise
        return ops.where(x < y, x, y)

    @staticmethod
    def nan_to_num(x: Any, nan: float, posinf: float, neginf: float) -> Any:
        """One `where`, for the core fills all three alike."""
        assert nan == posinf == neginf
        return ops.where(ops.isfinite(x), x, _like(nan, x))

    @staticmethod
    def stack(arrays: Any) -> Any:
        return ops.stack(list(arrays))

    @staticmethod
    def finfo(dtype: Any) -> Any:
        return np.finfo(keras.backend.standardize_dtype(dtype))


XP = _Ops()


def _like(value: Any, array: Any) -> Any:
    """A Python number as a tensor of the array's dtype."""
    return value if is_tensor(value) else ops.convert_to_tensor(value, array.dtype)


def is_tensor(x: Any) -> bool:
    """Whether `x` is a tensor, a symbolic one or a variable."""
    return ops.is_tensor(x) or isinstance(x, (keras.KerasTensor, keras.Variable))


def stack(losses: list[Any], dtype: str) -> tuple[Any, Any]:
    """Scalars to a vector; an absent one is 0 and, if there is any, False in the second result.

    Numbers, NumPy's too, are constants; `dtype` is what there is where no loss is a tensor.
    """
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in losses if is_tensor(x)}
    dtype = keras.backend.result_type(*dtypes) if dtypes else dtype
    check_scalars(loss.shape if is_tensor(loss) else np.shape(loss) for loss in losses)
    scalars = []
    for i, loss in enumerate(losses):
        if is_tensor(loss):
            scalars.append(loss)
        elif loss is None or np.asarray(loss).dtype.kind in "iuf":
            scalars.append(ops.convert_to_tensor(0.0 if loss is None else loss, dtype))
        else:
            kind = type(loss).__name__
            raise ValueError(f"each loss must be a tensor or number, loss {i} is a {kind}")
    there = [loss is not None for loss in losses]
    stacked = ops.stack(scalars) if any(there) else _nothing(len(losses), dtype)
    return stacked, None if all(there) else ops.convert_to_tensor(there, dtype="bool")


def _nothing(count: int, dtype: str) -> Any:
    """Zeros that PyTorch's backward works on, though nothing depends on them."""
    zeros = ops.zeros(count, dtype)
    if keras.backend.backend() == "torch":
        import torch

        zeros.requires_grad_(torch.is_grad_enabled())
    return zeros


def implied_training(layer: Any) -> bool:
    """What `training` means for `layer` if neither its caller nor the calls around it say it.

    True in a loop of one's own, False (inference, as Keras has it) within another layer's call.

    Raises:
        ValueError: under JAX's `stateless_call`, in `fit` too, which forgets what it was told.
    """
    context = get_global_attribute("current_call_ctx")
    if context is None:  # `stateless_call` of this very layer
        return True
    if context.entry_layer is layer and in_stateless_scope() and not in_symbolic_scope():
        raise ValueError(
            "training must be passed on here, balance(losses, training=training): "
            "Keras does not in a stateless call, got None"
        )
    return context.entry_layer is layer


def cast(x: Any, dtype: Any) -> Any:
    """`x` in that dtype; itself where it has it, for which Keras takes an operator's time."""
    dtype = keras.backend.standardize_dtype(dtype)
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)


def on_torch() -> bool:
    """Whether variables are PyTorch's tensors, to be written to."""
    return bool(keras.backend.backend() == "torch") and not in_stateless_scope()


def read(variable: Any) -> Any:
    """What the variable holds now, whatever is written to it later.

    A copy on PyTorch alone, where an assignment writes in place; elsewhere that would be an
    operator more.
    """
    if keras.backend.backend() == "torch":
        return ops.copy(variable)
    held = variable.value
    reading = getattr(held, "value", None)  # of TensorFlow's variables
    return reading() if callable(reading) else held


def has_values(x: Any) -> bool:
    """Whether there is something to look at: not while Keras or a compiler traces."""
    if isinstance(x, keras.KerasTensor):
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.executing_eagerly())
    if keras.backend.backend() == "jax":
        import jax

        return not isinstance(x, jax.core.Tracer)
    import torch

    return not (torch.compiler.is_compiling() or x.is_meta)


def compiling(x: Any) -> bool:
    """Whether this call is traced once and runs often, without Python.

    PyTorch's compiler looks at what Python would see and compiles anew, so there it is not.
    """
    if keras.backend.backend() == "torch" or in_symbolic_scope():
        return False
    return not has_values(x)


def loading() -> bool:
    """Whether Keras is loading a model, and knows which objects its parts share."""
    return get_global_attribute("shared_objects/id_to_obj_map") is not None


def loaded_once(config: Any) -> Any:
    """The layer of a config within others, one for all of the same name while a model is loaded.

    Keras' own way of sharing fails for configs within configs: it marks copies of them.
    """
    key = f"loss_balance/{config['config']['name']}"
    found = get_shared_object(key)
    if found is None:
        found = keras.saving.deserialize_keras_object(config)
        record_object_after_deserialization(found, key)
    return found


def replicas() -> int:
    """How many replicas run this step, each with its share of the batch, under `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else int(replica.num_replicas_in_sync)


def sum_over_replicas(pending: Any) -> Any:
    """What all replicas have noted, by one all-reduce; itself where there is one replica."""
    if replicas() == 1:
        return pending
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, pending)


def mean_over_replicas(losses: Any) -> Any:
    """What the losses of the whole batch are, shape (losses,), with the gradient of this replica's.

    A replica whose samples all weigh nothing has a part in it, as they have on one device.
    """
    if replicas() == 1:
        return losses
    whole = sum_over_replicas(ops.stop_gradient(losses)) / replicas()
    return losses + (whole - ops.stop_gradient(losses))


def on_any_replica(present: Any) -> Any:
    """Whether each loss is there on some replica."""
    if replicas() == 1:
        return present
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, ops.cast(present, "float32")) > 0
