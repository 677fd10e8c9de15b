"""What the Keras tests share: tensors and gradients on whatever backend Keras runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from loss_balance import AdaLoss, LogLoss

NAMES = ["a", "b", "c"]
of_another = pytest.mark.parametrize(  # what a state of AdaLoss(3) with NAMES is not for, and why
    ("scheme", "names", "message"),
    [
        (AdaLoss(3, gamma=0.5), NAMES, r"gamma was 0.05, is 0.5 \(strict=False"),
        (LogLoss(3), NAMES, "it is of AdaLoss"),
        (3, ["a", "b", "d"], r"its losses are .'a', 'b', 'c'., expected .'a', 'b', 'd'."),
        (2, ["a", "b"], r"its losses are .'a', 'b', 'c'., expected .'a', 'b'."),
    ],
)
BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)  # for a state in float64
elif BACKEND == "torch":
    import torch
else:
    import tensorflow as tf


def tensors(losses: Any, dtype: str = "float32") -> Any:
    """Floats in whatever container to scalar tensors or a vector of `dtype`."""

    def one(x: Any) -> Any:
        return None if x is None else ops.convert_to_tensor(np.asarray(x), dtype)

    if isinstance(losses, dict):
        return {name: one(x) for name, x in losses.items()}
    if isinstance(losses, np.ndarray):
        return one(losses)
    if isinstance(losses, float):
        return losses
    return type(losses)(one(x) for x in losses)


def gradients(layer: keras.Layer, losses_of: Callable[[list[Any]], Any], xs: list[Any]) -> Any:
    """d layer(losses_of(xs)) / d xs of one call in training, which updates the layer."""
    if BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            tape.watch(xs)
            total = layer(losses_of(xs))
        return [float(g) for g in tape.gradient(total, xs)]
    if BACKEND == "torch":
        for x in xs:
            x.requires_grad_()
        return [float(g) for g in torch.autograd.grad(layer(losses_of(xs)), xs)]

    def pure(xs: list[Any]) -> Any:
        state = [variable.value for variable in layer.non_trainable_variables]
        return layer.stateless_call([], state, losses_of(xs))

    found, state = jax.jit(jax.grad(pure, has_aux=True))(xs)
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return [float(g) for g in found]


def differentiated(
    function: Callable[..., Any], given: list[Any], *, compiled: bool = False
) -> tuple[list[Any], Any]:
    """(gradients of the first thing that `function` returns, by all that is given; the second).

    PyTorch's are not compiled.
    """
    if BACKEND == "torch":
        given = [x.detach().requires_grad_() for x in given]
        total, kept = function(*given)
        return list(torch.autograd.grad(total, given)), kept
    if BACKEND == "jax":
        run = jax.grad(function, argnums=tuple(range(len(given))), has_aux=True)
        found, kept = (jax.jit(run) if compiled else run)(*given)
        return list(found), kept

    def run(*given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            total, kept = function(*given)
        return tape.gradient(total, list(given)), kept

    found, kept = (tf.function(run, jit_compile=True) if compiled else run)(*given)
    return list(found), kept


def as_float64(x: Any) -> np.ndarray:
    """An array of NumPy's, of bfloat16 too."""
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")), np.float64)


def compiled(layer: keras.Layer, **static: Any) -> Callable[..., Any]:
    """`layer(losses, **static, **traced)` in training as a compiled function; `.traces` counts.

    What it is called with is traced; PyTorch's layers are not compiled and run as they are.
    """

    def call(losses: Any, traced: dict[str, Any]) -> Any:
        compiled_call.traces += 1
        return layer(losses, training=True, **static, **traced)

    def stateless(state: list[Any], losses: Any, traced: dict[str, Any]) -> Any:
        compiled_call.traces += 1
        return layer.stateless_call([], state, losses, training=True, **static, **traced)

    run = {"tensorflow": lambda: tf.function(call), "jax": lambda: jax.jit(stateless)}
    function = run.get(BACKEND, lambda: call)()

    def compiled_call(losses: Any, **traced: Any) -> Any:
        if BACKEND != "jax":
            return function(losses, traced)
        state = [variable.value for variable in layer.non_trainable_variables]
        total, state = function(state, losses, traced)
        for variable, value in zip(layer.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return total

    compiled_call.traces = 0
    return compiled_call
