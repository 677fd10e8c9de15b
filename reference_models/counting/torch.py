"""Multiply-adds of what runs on PyTorch, by its own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(run: Callable[..., Any], *given: Any) -> int:
    """Of convolutions, matrix products and attention while `run(*given)` runs, without gradient."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*given)
    return int(counter.get_total_flops()) // 2
