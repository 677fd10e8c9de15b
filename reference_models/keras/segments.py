"""What Keras computes between two exits, as one graph or as a function of tensors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

Segment = Callable[[Any], tuple[Any, Any]]  # maps to (what the next one reads, logits)


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
