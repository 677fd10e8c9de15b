"""ReLU and global average in one, which keeps a byte of each value for the backward pass, not four.

An exit of a ResANN would otherwise keep as much as a quarter of a unit of the trunk does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)


class _MeanOfReLU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(x).mean(dim=(2, 3)), x > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        (x,), (_, positive) = inputs, output
        ctx.pixels = x.shape[2] * x.shape[3]
        ctx.mark_non_differentiable(positive)
        ctx.save_for_backward(positive)
        ctx.save_for_forward(positive)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return gradients[0][:, :, None, None] / ctx.pixels * positive

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        (positive,) = ctx.saved_tensors
        return (tangents[0] * positive).mean(dim=(2, 3)), None


def mean_of_relu(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # compilers see to it
        return F.relu(x).mean(dim=(2, 3))
    pooled: Tensor = _MeanOfReLU.apply(x)[0]  # type: ignore[no-untyped-call]
    return pooled
