"""What Keras computes between two exits, as one graph or as a function of tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import ops

from loss_balance.reference_models.description.inputs import positions

Segment = Callable[[Any], tuple[Any, Any]]  # maps to (what the next one reads, logits)


class Segments:
    """A network in inference, one exit at a time; on TensorFlow each stretch is one graph.

    Args:
        run: (maps, k=exit, training=False) to (what exit k + 1 goes on with, logits of exit k).
    """

    def __init__(self, run: Callable[..., tuple[Any, Any]]) -> None:
        self._run = run
        self._made: dict[int, Segment] = {}

    def answers(self, x: Any, count: int) -> Generator[Any, Any, None]:
        """The logits of `count` exits; `send` takes the samples to go on with."""
        for k in range(count):
            x, logits = self._compiled(k, x)(x)
            kept = yield logits
            if kept is not None:
                chosen = positions(kept, keras.tree.flatten(x)[0].shape[0])
                x = keras.tree.map_structure(partial(ops.take, indices=chosen, axis=0), x)

    def _compiled(self, k: int, x: Any) -> Segment:
        """On TensorFlow one graph for all batch sizes."""
        if k not in self._made:
            run = partial(self._run, k=k, training=False)
            self._made[k] = traced(run, x) if on_tensorflow() else run
        return self._made[k]


@dataclass(frozen=True)
class Unpacked:
    """A segment that takes its maps as arguments and gives (*maps for the next one, logits)."""

    run: Segment
    listed: bool  # whether it takes a list of maps, even if only one
    last: bool  # no segment comes after it, so it hands on no maps

    def __call__(self, *maps: Any) -> tuple[Any, ...]:
        features, logits = self.run(list(maps) if self.listed else maps[0])
        return (logits,) if self.last else (*keras.tree.flatten(features), logits)


def on_tensorflow() -> bool:
    """Whether Keras runs on it; graphs are made on no other backend."""
    return bool(keras.backend.backend() == "tensorflow")


def traced(run: Segment, x: Any) -> Segment:
    """`run` as one TensorFlow graph for maps like `x`, as many as there are.

    In eager mode the graph is called as an op: `tf.function` takes half a millisecond to find it,
    as long as a small unit computes. The op has no gradient. It is given the variables by handle,
    so it always reads their present values.
    """
    import tensorflow as tf

    like = keras.tree.map_structure(lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), x)
    function = tf.function(run, input_signature=(like,), autograph=False)
    graph = function.get_concrete_function()
    variables, dtypes = list(graph.captured_inputs), [t.dtype for t in graph.outputs]

    def call(x: Any) -> tuple[Any, Any]:
        if not tf.executing_eagerly():
            reached, logits = function(x)
            return reached, tf.stop_gradient(logits)  # as eagerly
        *maps, logits = tf.raw_ops.StatefulPartitionedCall(
            args=[*keras.tree.flatten(x), *variables], Tout=dtypes, f=graph
        )
        several = isinstance(graph.structured_outputs[0], list)
        return (maps if several else maps[0]), tf.raw_ops.StopGradient(input=logits)

    return call


def multiply_adds(run: Segment, x: Any) -> int:
    """What `run` multiplies and adds for one sample of maps like `x`, KerasTensors.

    Convolutions and matrix products, as the counter of the framework in use has them.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        from loss_balance.reference_models.counting import tensorflow as on_tensorflow

        like = keras.tree.map_structure(lambda t: tf.TensorSpec((1, *t.shape[1:]), t.dtype), x)
        return on_tensorflow.multiply_adds(run, like)
    zeros = keras.tree.map_structure(lambda t: ops.zeros((1, *t.shape[1:]), t.dtype), x)
    if backend == "torch":
        from loss_balance.reference_models.counting import torch as on_torch

        return on_torch.multiply_adds(run, zeros)
    if backend == "jax":
        from loss_balance.reference_models.counting import jax as on_jax

        return on_jax.multiply_adds(run, zeros)
    raise NotImplementedError(f"costs are counted on TensorFlow, JAX and PyTorch, got {backend}")
