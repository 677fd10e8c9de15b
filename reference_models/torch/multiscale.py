"""MSDNet's parts as PyTorch modules: they take and return a list of maps, finest first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.reference_models.description import multiscale
from loss_balance.reference_models.torch.layers import ConvNormReLU, batch_norm, conv


class MultiScaleStem(nn.Module):
    """conv-BN-ReLU of the image, then conv3x3/2-BN-ReLU of each map for the next scale."""

    def __init__(self, stem: multiscale.MultiScaleStem) -> None:
        super().__init__()
        first = (7, 2) if stem.downsample else (3, 1)
        channels = (stem.in_channels, *stem.out_channels)
        for scale, out_channels in enumerate(stem.out_channels):
            size, stride = first if scale == 0 else (3, 2)
            layer = ConvNormReLU(channels[scale], out_channels, size, stride)
            self.add_module(f"scale{scale}", layer)
        self.downsample: bool = stem.downsample

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) to one map per scale."""
        maps: list[Tensor] = []
        for scale, layer in enumerate(self.children()):
            x = layer(x)
            if scale == 0 and self.downsample:
                x = F.max_pool2d(x, 3, stride=2, padding=1)
            maps.append(x)
        return maps


class Edge(nn.Module):
    """conv1x1-BN-ReLU-conv3x3-BN-ReLU from one scale to the same or the next coarser one."""

    def __init__(self, edge: multiscale.Edge) -> None:
        super().__init__()
        self.conv1: nn.Conv2d = conv(edge.in_channels, edge.inner_channels, 1)
        self.norm1: nn.BatchNorm2d = batch_norm(edge.inner_channels)
        self.conv2: nn.Conv2d = conv(edge.inner_channels, edge.out_channels, 3, edge.stride)
        self.norm2: nn.BatchNorm2d = batch_norm(edge.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)))


class MultiScaleUnit(nn.Module):
    """Every map kept and, behind it, new channels from its own scale and the next finer one."""

    def __init__(self, unit: multiscale.MultiScaleUnit) -> None:
        super().__init__()
        self.edges: tuple[multiscale.Edge, ...] = unit.edges()
        for edge in self.edges:
            self.add_module(edge.name, Edge(edge))
        self.dropped: int = unit.dropped

    def forward(
        self, maps: list[Tensor], *, only_new: bool = False
    ) -> list[Tensor] | list[list[Tensor]]:
        """One map per scale to one per scale kept, each with `growth` more channels.

        With `only_new` these alone: per scale, those from itself, then those from the finer one.
        """
        old = maps[self.dropped :]
        new: list[list[Tensor]] = [[] for _ in old]
        for edge, layer in zip(self.edges, self.children(), strict=True):
            new[edge.target].append(layer(maps[edge.source]))
        if only_new:
            return new
        return [torch.cat((x, *more), dim=1) for x, more in zip(old, new, strict=True)]


class MultiScaleTransition(nn.Module):
    """conv1x1-BN-ReLU on every scale."""

    def __init__(self, unit: multiscale.MultiScaleTransition) -> None:
        super().__init__()
        for scale, channels in enumerate(zip(unit.in_channels, unit.out_channels, strict=True)):
            self.add_module(f"scale{scale}", ConvNormReLU(*channels, size=1))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map per scale to as many of the same sides."""
        return [layer(x) for layer, x in zip(self.children(), maps, strict=True)]
