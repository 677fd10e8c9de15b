"""The usual update where Keras runs on PyTorch: by PyTorch's own operators, in place.

Through `keras.ops` every operator would be looked over anew in each step, and every variable
copied. Imported on that backend alone.
"""

from __future__ import annotations

from typing import Any

import keras
import torch

from loss_balance.backends.torch import ops
from loss_balance.schemes.base import AnyState


class _Namespace:
    """PyTorch's names, and for a scheme of one's own that asks for more, those of `keras.ops`."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(ops if hasattr(ops, name) else keras.ops, name)
        setattr(self, name, found)
        return found


_XP = _Namespace()


@torch.no_grad()
def update(layer: Any, losses: Any, present: Any) -> Any:
    """Moves the variables of a balancer by detached losses; returns the weights to use."""
    kind = layer.scheme.state_type()
    held = {name: layer.variable(name).value.detach() for name in kind._fields if name != "weights"}
    weights = layer.loss_weights  # a copy: backward holds what is returned
    old: AnyState = kind(**held, weights=weights)
    new = layer.scheme.update(old, losses, _XP, present)
    for name, value in new._asdict().items():
        if value is not getattr(old, name):
            layer.variable(name).value.copy_(value)
    return new.weights
