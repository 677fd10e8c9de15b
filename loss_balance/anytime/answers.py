"""Generators of answers: how one is started, waited for and checked, whatever computes it.

An anytime network has `anytime(x)`, a generator that yields the logits of one exit at a time and
computes nothing beyond them. Nothing here imports a framework.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


def start(net: Any, x: Any) -> Iterator[Any]:
    """The answers to `x`: `net.anytime(x)`, or `net(x)` where net is a function that gives them.

    Raises:
        TypeError: what came is no iterator, say the output of an ordinary network.
    """
    answers = getattr(net, "anytime", net)(x)
    if not isinstance(answers, Iterator):
        kind = type(answers).__name__
        raise TypeError(f"a network must give an iterator of answers, one per exit, got {kind}")
    return answers


def ready(value: Any) -> None:
    """Waits until `value` is computed; accelerators hand out answers that are still in the works.

    Knows JAX arrays (`block_until_ready`), torch tensors on a device with streams and TensorFlow's
    eager tensors; anything else counts as ready.
    """
    if hasattr(value, "block_until_ready"):
        value.block_until_ready()
        return
    device = getattr(value, "device", "cpu")
    if hasattr(value, "numpy") and "GPU" in str(device):  # TensorFlow: "/job:.../device:GPU:0"
        value.numpy()
    elif getattr(device, "type", "cpu") not in {"cpu", "meta"} and "torch" in sys.modules:
        module = sys.modules["torch"].get_device_module(device)
        if hasattr(module, "current_stream"):
            module.current_stream(device).synchronize()
        else:  # Apple's mps has one queue
            module.synchronize()


def to_numpy(value: Any) -> npt.NDArray[np.float64]:
    """A copy of an array or tensor of any framework in float64, on the host."""
    if hasattr(value, "detach"):  # torch: NumPy takes no gradient, no GPU and no bfloat16
        value = value.detach().cpu().double().numpy()
    return np.array(value, dtype=np.float64)
