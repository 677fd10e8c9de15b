"""The parts of the reference networks as PyTorch modules; a map is (B, C, H, W).

Parts of several scales (`torch_multiscale`) take and return a list of maps, finest first, all
others one map. Layers are called as in the spec.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.reference_models.description import multiscale, parts, units
from loss_balance.reference_models.description.parts import module_for
from loss_balance.reference_models.torch.layers import ConvNormReLU, batch_norm, conv
from loss_balance.reference_models.torch.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)


class ConvStem(nn.Module):
    """One 3x3 convolution."""

    def __init__(self, stem: parts.ConvStem) -> None:
        super().__init__()
        self.conv: nn.Conv2d = conv(stem.in_channels, stem.out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        y: Tensor = self.conv(x)
        return y


class ImageStem(ConvNormReLU):
    """conv7x7/2-BN-ReLU-maxpool3x3/2."""

    def __init__(self, stem: parts.ImageStem) -> None:
        super().__init__(stem.in_channels, stem.out_channels, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / 4, W / 4), rounded up at each half."""
        return F.max_pool2d(super().forward(x), 3, stride=2, padding=1)


class ResidualUnit(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus the input, averaged and zero-padded where shapes change."""

    def __init__(self, unit: units.ResidualUnit) -> None:
        super().__init__()
        self.norm1: nn.BatchNorm2d = batch_norm(unit.in_channels)
        self.conv1: nn.Conv2d = conv(unit.in_channels, unit.out_channels, 3, unit.stride)
        self.norm2: nn.BatchNorm2d = batch_norm(unit.out_channels)
        self.conv2: nn.Conv2d = conv(unit.out_channels, unit.out_channels, 3)
        self.stride: int = unit.stride
        self.padding: int = (unit.out_channels - unit.in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y: Tensor = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return y + self.shortcut(x)

    def shortcut(self, x: Tensor) -> Tensor:
        """`x` in the shape of the output; no parameters."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return x


class BottleneckUnit(nn.Module):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1 plus the input.

    Where shapes change, the input goes through a 1x1 convolution (`shortcut`).
    """

    def __init__(self, unit: units.BottleneckUnit) -> None:
        super().__init__()
        self.norm1: nn.BatchNorm2d = batch_norm(unit.in_channels)
        self.conv1: nn.Conv2d = conv(unit.in_channels, unit.inner_channels, 1)
        self.norm2: nn.BatchNorm2d = batch_norm(unit.inner_channels)
        self.conv2: nn.Conv2d = conv(unit.inner_channels, unit.inner_channels, 3, unit.stride)
        self.norm3: nn.BatchNorm2d = batch_norm(unit.inner_channels)
        self.conv3: nn.Conv2d = conv(unit.inner_channels, unit.out_channels, 1)
        if unit.projects:
            self.shortcut: nn.Module = conv(unit.in_channels, unit.out_channels, 1, unit.stride)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y: Tensor = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        y = self.conv3(F.relu(self.norm3(y)))
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut


class DenseUnit(nn.Module):
    """The input and, behind it, BN-ReLU-conv3x3 of it, or BN-ReLU-conv1x1-BN-ReLU-conv3x3."""

    def __init__(self, unit: units.DenseUnit) -> None:
        super().__init__()
        inner = unit.inner_channels
        self.norm1: nn.BatchNorm2d = batch_norm(unit.in_channels)
        if inner is None:
            self.conv1: nn.Conv2d = conv(unit.in_channels, unit.growth, 3)
        else:
            self.conv1 = conv(unit.in_channels, inner, 1)
            self.norm2: nn.BatchNorm2d = batch_norm(inner)
            self.conv2: nn.Conv2d = conv(inner, unit.growth, 3)
        self.bottlenecked: bool = inner is not None

    def forward(self, x: Tensor, *, only_new: bool = False) -> Tensor:
        """(B, in_channels, H, W) to (B, in_channels + growth, H, W), or (B, growth, H, W)."""
        y: Tensor = self.conv1(F.relu(self.norm1(x)))
        if self.bottlenecked:
            y = self.conv2(F.relu(self.norm2(y)))
        return y if only_new else torch.cat((x, y), dim=1)


class DenseTransition(nn.Module):
    """BN-ReLU-conv1x1-averagepool2x2."""

    def __init__(self, unit: units.DenseTransition) -> None:
        super().__init__()
        self.norm: nn.BatchNorm2d = batch_norm(unit.in_channels)
        self.conv: nn.Conv2d = conv(unit.in_channels, unit.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        y: Tensor = self.conv(F.relu(self.norm(x)))
        return F.avg_pool2d(y, 2)


class LinearHead(nn.Module):
    """BN-ReLU-global average-linear."""

    def __init__(self, head: parts.LinearHead) -> None:
        super().__init__()
        self.norm: nn.BatchNorm2d = batch_norm(head.in_channels)
        self.linear: nn.Linear = nn.Linear(head.in_channels, head.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, num_classes)."""
        logits: Tensor = self.linear(F.relu(self.norm(x)).mean(dim=(2, 3)))
        return logits


class ConvHead(nn.Module):
    """Twice conv3x3/2-BN-ReLU, then global average-linear."""

    def __init__(self, head: parts.ConvHead) -> None:
        super().__init__()
        self.conv1: nn.Conv2d = conv(head.in_channels, head.filters, 3, stride=2)
        self.norm1: nn.BatchNorm2d = batch_norm(head.filters)
        self.conv2: nn.Conv2d = conv(head.filters, head.filters, 3, stride=2)
        self.norm2: nn.BatchNorm2d = batch_norm(head.filters)
        self.linear: nn.Linear = nn.Linear(head.filters, head.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, num_classes)."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


MODULES: dict[type[parts.Part | parts.Head], Any] = {
    parts.ConvStem: ConvStem,
    parts.ImageStem: ImageStem,
    multiscale.MultiScaleStem: MultiScaleStem,
    units.ResidualUnit: ResidualUnit,
    units.BottleneckUnit: BottleneckUnit,
    units.DenseUnit: DenseUnit,
    units.DenseTransition: DenseTransition,
    multiscale.MultiScaleUnit: MultiScaleUnit,
    multiscale.MultiScaleTransition: MultiScaleTransition,
    parts.LinearHead: LinearHead,
    parts.ConvHead: ConvHead,
}


def build(part: parts.Part | parts.Head) -> nn.Module:
    """The module for a part of a spec.

    Raises:
        ValueError: `MODULES` has none for its kind.
    """
    module: nn.Module = module_for(part, MODULES)(part)
    return module
