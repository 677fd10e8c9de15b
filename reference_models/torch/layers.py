"""Layers of the reference networks in PyTorch; a map is (B, C, H, W).

Padding is symmetric everywhere: what "same" means at stride 2 differs between frameworks.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.reference_models.description.layers import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of every framework here; torch counts 1 - decay."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_DECAY)


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, padded with `size // 2` zeros on every side."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


class ConvNormReLU(nn.Module):
    """conv-BN-ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv: nn.Conv2d = conv(in_channels, out_channels, size, stride)
        self.norm: nn.BatchNorm2d = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y: Tensor = self.conv(x)
        return F.relu(self.norm(y))
