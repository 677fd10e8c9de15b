"""Ways to ask a network for all its logits, in evaluation mode and with nothing around them."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.timing import Step
from loss_balance.experiments.verification.probes import InputImages


def torch(net: Any, images: InputImages) -> dict[str, Step]:
    """`anytime` to its end, and a call."""
    from torch import inference_mode

    from loss_balance.reference_models.torch import native

    net.eval()
    x = native(images)

    def timed(answers: Any) -> list[Any]:
        with inference_mode():
            return [logits.numpy() for logits in answers(x)]

    return {"anytime": partial(timed, net.anytime), "a call": partial(timed, net)}


def tensorflow(net: Any, images: InputImages) -> dict[str, Step]:
    """`anytime` to its end, and a compiled call."""
    import tensorflow as tf

    x, call = tf.constant(images), tf.function(partial(net, training=False))
    return {
        "anytime": lambda: [logits.numpy() for logits in net.anytime(x)],
        "tf.function": lambda: [logits.numpy() for logits in call(x)],
    }


def jax(net: Any, images: InputImages) -> dict[str, Step]:
    """`anytime` to its end, and calls: as NNX does it, as JAX does, and as fast as JAX can.

    The first two walk through all modules in Python at every call, the last never.
    """
    import jax
    import numpy as np
    from flax import nnx

    net.eval()
    x = jax.numpy.asarray(images)
    graph, state = nnx.split(net)
    arrays, structure = jax.tree.flatten(state)

    @nnx.jit
    def with_nnx(net: Any, x: Any) -> Any:
        return net(x)

    @jax.jit
    def with_jax(net: Any, x: Any) -> Any:
        return net(x)

    @jax.jit
    def pure(arrays: list[Any], x: Any) -> Any:
        return nnx.merge(graph, jax.tree.unflatten(structure, arrays))(x)

    return {
        "anytime": lambda: [np.asarray(logits) for logits in net.anytime(x)],
        "nnx.jit": lambda: [np.asarray(logits) for logits in with_nnx(net, x)],
        "jax.jit": lambda: [np.asarray(logits) for logits in with_jax(net, x)],
        "jax.jit, arrays": lambda: [np.asarray(logits) for logits in pure(arrays, x)],
    }
