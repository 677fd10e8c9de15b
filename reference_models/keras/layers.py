"""What the Keras parts are made of, on every backend of Keras; a map is (B, H, W, C).

`keras.config.image_data_format()` is not asked. Kernels are zero until weights are loaded.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from loss_balance.backends.keras_bases import Conv2D, Layer
from loss_balance.reference_models.description.layers import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
)


class PaddedConv2D(Conv2D):
    """Padded with `size // 2` zeros on every side.

    Keras' "same" at stride 2 pads even sides behind alone.
    """

    def call(self, x: Any) -> Any:
        height, width = (size // 2 for size in self.kernel_size)
        return super().call(ops.pad(x, ((0, 0), (height, height), (width, width), (0, 0))))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        sides = zip((height, width), self.kernel_size, strict=True)
        padded = (side if side is None else side + 2 * (size // 2) for side, size in sides)
        return super().compute_output_shape((batch, *padded, channels))


class PartLayer(Layer):
    """A layer whose sublayers have its dtype policy."""

    def new_conv(self, name: str, filters: int, size: int, stride: int = 1) -> keras.layers.Conv2D:
        """(B, H, W, C) to (B, H / stride, W / stride, filters), rounded up; no bias."""
        padded = stride > 1 and size > 1
        kind = PaddedConv2D if padded else keras.layers.Conv2D
        return kind(
            filters,
            size,
            strides=stride,
            padding="valid" if padded else "same",
            data_format="channels_last",
            use_bias=False,
            kernel_initializer="zeros",
            name=name,
            dtype=self.dtype_policy,
        )

    def new_norm(self, name: str) -> keras.layers.BatchNormalization:
        """Batch norm with the constants of every framework here."""
        return keras.layers.BatchNormalization(
            momentum=BATCH_NORM_DECAY,
            epsilon=BATCH_NORM_EPSILON,
            name=name,
            dtype=self.dtype_policy,
        )

    def new_linear(self, name: str, outputs: int) -> keras.layers.Dense:
        """A linear layer in the variables' dtype: under mixed precision logits are float32."""
        return keras.layers.Dense(
            outputs, kernel_initializer="zeros", name=name, dtype=self.variable_dtype
        )


class ConvNormReLU(PartLayer):
    """conv-BN-ReLU."""

    def __init__(self, filters: int, size: int, stride: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.conv: Any = self.new_conv("conv", filters, size, stride)
        self.norm: Any = self.new_norm("norm")

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, C) to (B, H / stride, W / stride, filters), rounded up."""
        return ops.relu(self.norm(self.conv(x), training=training))


def average_pool(x: Any) -> Any:
    """Averages over 2x2, with stride 2."""
    return ops.average_pool(x, 2, strides=2, data_format="channels_last")


def max_pool(x: Any) -> Any:
    """Maxima over 3x3 with stride 2, after ReLU: a zero beyond the border changes none."""
    padded = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return ops.max_pool(padded, 3, strides=2, data_format="channels_last")


def recomputed(layer: keras.layers.Layer, maps: Any) -> Any:
    """`layer(maps, training=True)`, computed again in the backward pass instead of kept until then.

    `keras.remat` alone would move the running statistics twice. Here the layer runs without side
    effects both times; what it would have written is a result, written once, outside.

    Args:
        layer: built; takes one map, or a list of maps.
        maps: a tensor or a list of them.
    """
    trainable, state = layer.trainable_variables, layer.non_trainable_variables
    # A copy is a tensor; eagerly TensorFlow would count the gradient of a variable twice.
    values = [ops.copy(variable) for variable in (*trainable, *state)]
    tensors = [*keras.tree.flatten(maps), *values[: len(trainable)]]
    written: list[keras.Variable] = []
    made: list[Any] = []  # the structure of the result

    def run(*tensors: Any) -> tuple[Any, ...]:
        count = len(tensors) - len(trainable)
        known = [*tensors[count:], *values[len(trainable) :]]
        mapping = list(zip((*trainable, *state), known, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            before = [scope.get_current_value(variable) for variable in state]
            y = layer(keras.tree.pack_sequence_as(maps, tensors[:count]), training=True)
            after = [scope.get_current_value(variable) for variable in state]
        new = [i for i, value in enumerate(after) if value is not before[i]]
        written[:], made[:] = (state[i] for i in new), [y]
        return (*keras.tree.flatten(y), *(after[i] for i in new))

    results = list(keras.remat(run)(*tensors))
    count = len(results) - len(written)
    for variable, value in zip(written, results[count:], strict=True):
        variable.assign(value)
    return keras.tree.pack_sequence_as(made.pop(), results[:count])
