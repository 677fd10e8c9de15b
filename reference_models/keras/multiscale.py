"""The parts with several scales as Keras 3 layers: lists of maps, finest first (MSDNet)."""

from __future__ import annotations

from typing import Any

from keras import ops

from loss_balance.reference_models.description import multiscale
from loss_balance.reference_models.keras.layers import ConvNormReLU, PartLayer, max_pool


class MultiScaleStem(PartLayer):
    """Each scale by conv3x3/2-BN-ReLU from the one before it.

    The finest by conv3x3-BN-ReLU from the image, or conv7x7/2-BN-ReLU-maxpool3x3/2.
    """

    def __init__(self, stem: multiscale.MultiScaleStem, **options: Any) -> None:
        super().__init__(**options)
        self.downsample: bool = stem.downsample
        self.count: int = len(stem.out_channels)
        for scale, channels in enumerate(stem.out_channels):
            size = 7 if scale == 0 and stem.downsample else 3
            stride = 2 if scale > 0 or stem.downsample else 1
            name = f"scale{scale}"
            made = ConvNormReLU(channels, size, stride, name=name, dtype=self.dtype_policy)
            setattr(self, name, made)

    def call(self, x: Any, training: bool = False) -> list[Any]:
        """(B, H, W, C) to one map per scale."""
        maps = [self.scale0(x, training=training)]
        if self.downsample:
            maps = [max_pool(maps[0])]
        for scale in range(1, self.count):
            maps.append(getattr(self, f"scale{scale}")(maps[-1], training=training))
        return maps


class Edge(PartLayer):
    """conv1x1-BN-ReLU-conv3x3-BN-ReLU from one scale to the same or the next coarser one."""

    def __init__(self, edge: multiscale.Edge, **options: Any) -> None:
        super().__init__(**options)
        self.conv1: Any = self.new_conv("conv1", edge.inner_channels, 1)
        self.norm1: Any = self.new_norm("norm1")
        self.conv2: Any = self.new_conv("conv2", edge.out_channels, 3, edge.stride)
        self.norm2: Any = self.new_norm("norm2")

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, C) to (B, H / stride, W / stride, out_channels), rounded up."""
        y = ops.relu(self.norm1(self.conv1(x), training=training))
        return ops.relu(self.norm2(self.conv2(y), training=training))


class MultiScaleUnit(PartLayer):
    """Every map kept and, behind it, what its edges add: same scale, then finer scale."""

    def __init__(self, unit: multiscale.MultiScaleUnit, **options: Any) -> None:
        super().__init__(**options)
        self.unit = unit
        for edge in unit.edges():
            setattr(self, edge.name, Edge(edge, name=edge.name, dtype=self.dtype_policy))

    def call(self, maps: list[Any], training: bool = False) -> list[Any]:
        """One map per scale to one per scale that is kept."""
        made = [[kept] for kept in maps[self.unit.dropped :]]
        for edge in self.unit.edges():
            grow = getattr(self, edge.name)
            made[edge.target].append(grow(maps[edge.source], training=training))
        return [ops.concatenate(found, axis=-1) for found in made]


class MultiScaleTransition(PartLayer):
    """conv1x1-BN-ReLU on every scale."""

    def __init__(self, unit: multiscale.MultiScaleTransition, **options: Any) -> None:
        super().__init__(**options)
        for scale, channels in enumerate(unit.out_channels):
            name = f"scale{scale}"
            setattr(self, name, ConvNormReLU(channels, 1, name=name, dtype=self.dtype_policy))

    def call(self, maps: list[Any], training: bool = False) -> list[Any]:
        """One map per scale to as many with fewer channels."""
        return [
            getattr(self, f"scale{scale}")(x, training=training) for scale, x in enumerate(maps)
        ]
