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

from loss_balance.backends.interface import not_scalar


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
    def finfo(dtype: Any) -> Any:
        return np.finfo(keras.backend.standardize_dtype(dtype))


XP = _Ops()


def _like(value: Any, array: Any) -> Any:
    """A Python number as a tensor of the array's dtype."""
    return value if is_tensor(value) else ops.convert_to_tensor(value, array.dtype)


def is_tensor(x: Any) -> bool:
    """Whether `x` is a tensor, a symbolic one or a variable."""
    return ops.is_tensor(x) or isinstance(x, (keras.KerasTensor, keras.Variable))


def stack(losses: list[Any]) -> tuple[Any, Any]:
    """Scalars to a vector; an absent one is 0 and, if there is any, False in the second result."""
    for i, loss in enumerate(losses):
        if loss is None:
            continue
        if not is_tensor(loss):
            raise ValueError(f"each loss must be a tensor, loss {i} is a {type(loss).__name__}")
        if len(loss.shape):
            raise not_scalar(i, loss.shape)
    there = [loss is not None for loss in losses]
    if all(there):
        return ops.stack(losses), None
    zero = ops.zeros_like(next(loss for loss in losses if loss is not None))
    stacked = ops.stack([zero if loss is None else loss for loss in losses])
    return stacked, ops.convert_to_tensor(there, dtype="bool")


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


def replicas() -> int:
    """How many replicas run this step, each with its share of the batch, under `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else int(replica.num_replicas_in_sync)


def mean_over_replicas(losses: Any, present: Any) -> tuple[Any, Any]:
    """(mean of each loss over the replicas that have it, whether any has it), one all-reduce.

    A NaN on one replica makes the mean NaN on all, so all skip it alike.
    """
    if replicas() == 1:
        return losses, present
    import tensorflow as tf

    has = ops.ones_like(losses) if present is None else ops.cast(present, losses.dtype)
    sums = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, ops.stack((losses, has))
    )
    return sums[0] / sums[1], sums[1] > 0


def on_any_replica(present: Any) -> Any:
    """Whether each loss is there on some replica: the others' zeros are then part of its mean."""
    if replicas() == 1:
        return present
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, ops.cast(present, "float32")) > 0
