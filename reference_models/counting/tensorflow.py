"""Multiply-adds of what runs on TensorFlow, by the operations of its graph.

TensorFlow's profiler is not asked: it knows no "Einsum", of which attention consists, does not look
into functions that a graph calls, which Keras makes of grouped convolutions, and warns of itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def multiply_adds(run: Callable[..., Any], *given: Any) -> int:
    """Of convolutions and matrix products in `run(*given)`; nothing is computed.

    Args:
        run: any function that TensorFlow can trace; what a loop does counts once.
        *given: structures of `tf.TensorSpec`s, all of known shape.
    """
    return _of(tf.function(run, autograph=False).get_concrete_function(*given).graph)


def _of(graph: Any) -> int:
    return sum(_of_operation(op) for op in graph.get_operations())


def _of_operation(op: Any) -> int:
    shapes = [x.shape for x in op.inputs]
    match op.type:
        case "Conv2D" | "Conv3D":  # (..., in / groups, out)
            return int(_size(op) * math.prod(shapes[1][:-1]))
        case "DepthwiseConv2dNative":
            return int(_size(op) * math.prod(shapes[1][:2]))
        case "MatMul":
            return int(_size(op) * shapes[0][0 if op.get_attr("transpose_a") else 1])
        case "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3":
            return int(_size(op) * shapes[0][-2 if op.get_attr("adj_x") else -1])
        case "Einsum" if len(shapes) == 2:
            return _of_einsum(op.get_attr("equation").decode(), shapes)
        case "PartitionedCall" | "StatefulPartitionedCall":
            return _of(op.graph._get_function(op.get_attr("f").name).graph)
    return 0


def _size(op: Any) -> int:
    return math.prod(op.outputs[0].shape)


def _of_einsum(equation: str, shapes: list[Any]) -> int:
    """One for each value of all its letters together."""
    sizes: dict[str, int] = {}
    for letters, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        first, dots, last = letters.partition("...")
        between = len(shape) - len(first) - len(last) if dots else 0
        # From behind, as broadcast axes are matched.
        labels = [*first, *(str(i) for i in reversed(range(between))), *last]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values())
