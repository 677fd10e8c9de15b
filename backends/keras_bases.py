"""Keras' classes that ours derive from, with types where Keras has none.

To a type checker a class of an untyped library is unknown, and so would be all that derives from
it; here each is a class with whatever attributes are asked of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class _Untyped:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...
        # What ours call of their `super()`.
        def build(self, *args: Any) -> Any: ...
        def call(self, *args: Any, **kwargs: Any) -> Any: ...
        def compute_output_shape(self, *args: Any) -> Any: ...
        def get_config(self) -> dict[str, Any]: ...
        def _trackable_children(self, *args: Any, **kwargs: Any) -> Any: ...

    class Layer(_Untyped):
        """`keras.Layer`."""

    class Conv2D(Layer):
        """`keras.layers.Conv2D`."""

    class Callback(_Untyped):
        """`keras.callbacks.Callback`."""

    class Metric(_Untyped):
        """`keras.Metric`."""

    class CompileLoss(_Untyped):
        """How `compile` itself reads losses."""

else:
    from keras import Layer, Metric
    from keras.callbacks import Callback
    from keras.layers import Conv2D
    from keras.src.trainers.compile_utils import CompileLoss

__all__ = ["Callback", "CompileLoss", "Conv2D", "Layer", "Metric"]
