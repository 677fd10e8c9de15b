"""What the networks' Flax NNX modules are made of; maps are (B, H, W, C)."""

from __future__ import annotations

from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from loss_balance.reference_models.description.layers import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
)

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])


def conv(
    inputs: int, filters: int, size: int, stride: int = 1, *, dtype: Any, rngs: nnx.Rngs
) -> nnx.Conv:
    """Without bias, padded alike on all sides: what "SAME" means at stride 2 differs elsewhere."""
    return nnx.Conv(
        inputs,
        filters,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        dtype=dtype,
        rngs=rngs,
    )


def batch_norm(channels: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch norm with the constants of every framework here."""
    return nnx.BatchNorm(
        channels,
        momentum=BATCH_NORM_DECAY,
        epsilon=BATCH_NORM_EPSILON,
        dtype=dtype,
        promote_dtype=unrounded,
        rngs=rngs,
    )


def unrounded(
    arrays: Arrays,
    /,
    *,
    dtype: Any = None,  # noqa: ARG001
    inexact: bool = True,  # noqa: ARG001
) -> Arrays:
    """The arrays as they are: a batch norm computes in float32, then rounds to its dtype once.

    Flax would first round the running statistics, scale and bias to a dtype like bfloat16.
    """
    return arrays


def max_pool(x: Array) -> Array:
    """Maxima over 3x3 with stride 2, padded alike on all sides."""
    pooled: Array = nnx.max_pool(  # type: ignore[no-untyped-call]
        x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
    )
    return pooled


def average_pool(x: Array) -> Array:
    """Averages over 2x2, with stride 2."""
    pooled: Array = nnx.avg_pool(x, (2, 2), strides=(2, 2))  # type: ignore[no-untyped-call]
    return pooled


class ConvNormReLU(nnx.Module):
    """A convolution, then BN-ReLU."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv: nnx.Conv = conv(inputs, filters, size, stride, dtype=dtype, rngs=rngs)
        self.norm: nnx.BatchNorm = batch_norm(filters, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, inputs) to (B, H / stride, W / stride, filters)."""
        return nnx.relu(self.norm(self.conv(x)))


def global_average(x: Array) -> Array:
    """(B, H, W, C) to (B, C), in float32 or wider: logits and losses need its digits."""
    return x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
