"""The parts of the reference networks as Keras 3 layers, one per kind; a map is (B, H, W, C).

Parts with several scales are in `tensorflow_multiscale`; layers are called as in the spec.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from loss_balance.reference_models.description import multiscale, parts, units
from loss_balance.reference_models.description.parts import module_for
from loss_balance.reference_models.keras.layers import (
    ConvNormReLU,
    PartLayer,
    average_pool,
    max_pool,
)
from loss_balance.reference_models.keras.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)


class ConvStem(PartLayer):
    """One 3x3 convolution."""

    def __init__(self, stem: parts.ConvStem, **options: Any) -> None:
        super().__init__(**options)
        self.conv: Any = self.new_conv("conv", stem.out_channels, 3)

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: ARG002 (as all parts)
        """(B, H, W, in_channels) to (B, H, W, out_channels)."""
        return self.conv(x)


class ImageStem(ConvNormReLU):
    """conv7x7/2-BN-ReLU-maxpool3x3/2."""

    def __init__(self, stem: parts.ImageStem, **options: Any) -> None:
        super().__init__(stem.out_channels, 7, stride=2, **options)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, H / 4, W / 4, out_channels), rounded up at each half."""
        return max_pool(super().call(x, training=training))


class ResidualUnit(PartLayer):
    """BN-ReLU-conv-BN-ReLU-conv plus the input, averaged and zero-padded where shapes change."""

    def __init__(self, unit: units.ResidualUnit, **options: Any) -> None:
        super().__init__(**options)
        self.norm1: Any = self.new_norm("norm1")
        self.conv1: Any = self.new_conv("conv1", unit.out_channels, 3, unit.stride)
        self.norm2: Any = self.new_norm("norm2")
        self.conv2: Any = self.new_conv("conv2", unit.out_channels, 3)
        self.stride: int = unit.stride
        self.padding: int = (unit.out_channels - unit.in_channels) // 2

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, H / stride, W / stride, out_channels)."""
        y = self.conv1(ops.relu(self.norm1(x, training=training)))
        y = self.conv2(ops.relu(self.norm2(y, training=training)))
        return y + self.shortcut(x)

    def shortcut(self, x: Any) -> Any:
        """`x` in the shape of the output; no parameters."""
        if self.stride > 1:
            x = average_pool(x)
        if self.padding:
            x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (self.padding, self.padding)))
        return x


class BottleneckUnit(PartLayer):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1 plus the input.

    Where shapes change, the input goes through a 1x1 convolution (`shortcut`).
    """

    def __init__(self, unit: units.BottleneckUnit, **options: Any) -> None:
        super().__init__(**options)
        self.norm1: Any = self.new_norm("norm1")
        self.conv1: Any = self.new_conv("conv1", unit.inner_channels, 1)
        self.norm2: Any = self.new_norm("norm2")
        self.conv2: Any = self.new_conv("conv2", unit.inner_channels, 3, unit.stride)
        self.norm3: Any = self.new_norm("norm3")
        self.conv3: Any = self.new_conv("conv3", unit.out_channels, 1)
        if unit.projects:
            self.shortcut: Any = self.new_conv("shortcut", unit.out_channels, 1, unit.stride)
        self.projects: bool = unit.projects

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, H / stride, W / stride, out_channels), rounded up."""
        y = self.conv1(ops.relu(self.norm1(x, training=training)))
        y = self.conv2(ops.relu(self.norm2(y, training=training)))
        y = self.conv3(ops.relu(self.norm3(y, training=training)))
        return y + (self.shortcut(x) if self.projects else x)


class DenseUnit(PartLayer):
    """The input and, behind it, BN-ReLU-conv3x3 of it, if bottlenecked after BN-ReLU-conv1x1."""

    def __init__(self, unit: units.DenseUnit, **options: Any) -> None:
        super().__init__(**options)
        self.bottlenecked: bool = unit.inner_channels is not None
        self.norm1: Any = self.new_norm("norm1")
        if unit.inner_channels is None:
            self.conv1: Any = self.new_conv("conv1", unit.growth, 3)
        else:
            self.conv1 = self.new_conv("conv1", unit.inner_channels, 1)
            self.norm2: Any = self.new_norm("norm2")
            self.conv2: Any = self.new_conv("conv2", unit.growth, 3)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, H, W, in_channels + growth)."""
        y = self.conv1(ops.relu(self.norm1(x, training=training)))
        if self.bottlenecked:
            y = self.conv2(ops.relu(self.norm2(y, training=training)))
        return ops.concatenate((x, y), axis=-1)


class DenseTransition(PartLayer):
    """BN-ReLU-conv1x1-averagepool2x2."""

    def __init__(self, unit: units.DenseTransition, **options: Any) -> None:
        super().__init__(**options)
        self.norm: Any = self.new_norm("norm")
        self.conv: Any = self.new_conv("conv", unit.out_channels, 1)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, H / 2, W / 2, out_channels)."""
        return average_pool(self.conv(ops.relu(self.norm(x, training=training))))


class LinearHead(PartLayer):
    """BN-ReLU-global average-linear."""

    def __init__(self, head: parts.LinearHead, **options: Any) -> None:
        super().__init__(**options)
        self.norm: Any = self.new_norm("norm")
        self.linear: Any = self.new_linear("linear", head.num_classes)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, num_classes)."""
        return self.linear(ops.mean(ops.relu(self.norm(x, training=training)), axis=(1, 2)))


class ConvHead(PartLayer):
    """Twice conv3x3/2-BN-ReLU, then global average-linear."""

    def __init__(self, head: parts.ConvHead, **options: Any) -> None:
        super().__init__(**options)
        self.conv1: Any = self.new_conv("conv1", head.filters, 3, stride=2)
        self.norm1: Any = self.new_norm("norm1")
        self.conv2: Any = self.new_conv("conv2", head.filters, 3, stride=2)
        self.norm2: Any = self.new_norm("norm2")
        self.linear: Any = self.new_linear("linear", head.num_classes)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, H, W, in_channels) to (B, num_classes)."""
        x = ops.relu(self.norm1(self.conv1(x), training=training))
        x = ops.relu(self.norm2(self.conv2(x), training=training))
        return self.linear(ops.mean(x, axis=(1, 2)))


MODULES: dict[type[parts.Part | parts.Head], type[PartLayer]] = {
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


def build(part: parts.Part | parts.Head, **options: Any) -> PartLayer:
    """The layer for a part of a spec, without variables yet.

    Args:
        part: of a spec.
        **options: of every Keras layer: `name`, `dtype`.

    Raises:
        ValueError: `MODULES` has none for its kind.
    """
    return module_for(part, MODULES)(part, **options)
