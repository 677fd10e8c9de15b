"""Multiply-adds of what runs on JAX, by its primitives.

XLA's cost analysis is not asked: it leaves out what a convolution multiplies with its padding, a
third of a 3x3 convolution's work on maps of 4x4, adds elementwise operations and depends on the
device. `AnytimeSpec.costs` and the counters of other frameworks do none of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def multiply_adds(run: Callable[..., Any], *given: Any) -> int:
    """Of convolutions and matrix products in `run(*given)`; nothing is computed.

    A scan counts as often as it goes round, a conditional as its dearest branch, a while loop once.

    Args:
        run: any function that JAX can trace.
        *given: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _of(jax.make_jaxpr(run)(*given).jaxpr)


def _of(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, shapes = equation.primitive.name, [x.aval.shape for x in equation.invars]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return int(_size(equation) * math.prod(shapes[0][axis] for axis in contracted))
    if name == "conv_general_dilated":
        filters = shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]
        return int(_size(equation) * math.prod(shapes[1]) // max(filters, 1))
    inner = [_of(jaxpr) for jaxpr in _within(list(equation.params.values()))]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * int(equation.params["length"] if name == "scan" else 1)


def _size(equation: Any) -> int:
    """Of its result."""
    return math.prod(equation.outvars[0].aval.shape)


def _within(params: Any) -> Iterator[Any]:
    for value in params:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _within(value)
