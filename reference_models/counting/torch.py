"""Multiply-adds of what runs on PyTorch, by its own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(run: Callable[..., Any], *given: Any) -> int:
    """Of convolutions and matrix products while `run(*given)` runs, without gradient.

    Attention as the products it consists of: the counter does not know the kernel for CPUs.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        run(*given)
    return int(counter.get_total_flops()) // 2
