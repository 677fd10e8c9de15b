"""Units of one scale, before any framework: residual (ResANN) and dense (DenseANN)."""

from __future__ import annotations

from dataclasses import dataclass

from loss_balance.reference_models.description.layers import BatchNorm, Conv, Layer, halved
from loss_balance.reference_models.description.parts import Features, Part, check_counts, single_map


@dataclass(frozen=True)
class ResidualUnit(Part):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3 plus the input (He et al. 2016, pre-activation).

    Where the side is halved (`stride` 2, in the first convolution) the input is averaged over 2x2;
    where channels are added they are zeros, half in front and half behind. The shortcut has no
    parameters.
    """

    in_channels: int
    out_channels: int
    stride: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels")
        added = self.out_channels - self.in_channels
        if added < 0 or added % 2:
            raise ValueError(
                "ResidualUnit must add an even number of channels (zeros, half in front, half "
                f"behind), got {self.in_channels} -> {self.out_channels}"
            )
        _check_stride("ResidualUnit", self.stride)

    def layers(self, inputs: Features) -> dict[str, Layer]:
        conv1 = Conv(inputs[0], self.out_channels, size=3, stride=self.stride)
        return {
            "norm1": BatchNorm(self.in_channels),
            "conv1": conv1,
            "norm2": BatchNorm(self.out_channels),
            "conv2": Conv(conv1.outputs, self.out_channels, size=3),
        }

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = single_map(inputs, self.in_channels)
        if self.stride == 2:
            _check_even(height, width)
        return ((height // self.stride, width // self.stride, self.out_channels),)


@dataclass(frozen=True)
class BottleneckUnit(Part):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1 plus the input (He et al. 2016).

    `stride` is that of the 3x3 convolution. Where channels or sides change, the shortcut is a 1x1
    convolution of the raw input with the same stride, as in the authors' code; the paper is silent.
    """

    in_channels: int
    inner_channels: int
    out_channels: int
    stride: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "inner_channels", "out_channels")
        _check_stride("BottleneckUnit", self.stride)

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a convolution."""
        return self.stride > 1 or self.in_channels != self.out_channels

    def layers(self, inputs: Features) -> dict[str, Layer]:
        conv1 = Conv(inputs[0], self.inner_channels, size=1)
        conv2 = Conv(conv1.outputs, self.inner_channels, size=3, stride=self.stride)
        layers: dict[str, Layer] = {
            "norm1": BatchNorm(self.in_channels),
            "conv1": conv1,
            "norm2": BatchNorm(self.inner_channels),
            "conv2": conv2,
            "norm3": BatchNorm(self.inner_channels),
            "conv3": Conv(conv2.outputs, self.out_channels, size=1),
        }
        if self.projects:
            layers["shortcut"] = Conv(inputs[0], self.out_channels, size=1, stride=self.stride)
        return layers

    def outputs(self, inputs: Features) -> Features:
        shape = single_map(inputs, self.in_channels)
        height, width, _ = halved(shape) if self.stride == 2 else shape
        return ((height, width, self.out_channels),)


@dataclass(frozen=True)
class DenseUnit(Part):
    """The input and, behind it, `growth` new channels: BN-ReLU-conv3x3 (Huang et al. 2017).

    With `inner_channels`, BN-ReLU-conv1x1 to so many channels comes first.
    """

    in_channels: int
    growth: int
    inner_channels: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "growth")
        if self.inner_channels is not None:
            check_counts(self, "inner_channels")

    def layers(self, inputs: Features) -> dict[str, Layer]:
        norm1 = BatchNorm(self.in_channels)
        if self.inner_channels is None:
            return {"norm1": norm1, "conv1": Conv(inputs[0], self.growth, size=3)}
        conv1 = Conv(inputs[0], self.inner_channels, size=1)
        return {
            "norm1": norm1,
            "conv1": conv1,
            "norm2": BatchNorm(self.inner_channels),
            "conv2": Conv(conv1.outputs, self.growth, size=3),
        }

    def outputs(self, inputs: Features) -> Features:
        height, width, channels = single_map(inputs, self.in_channels)
        return ((height, width, channels + self.growth),)


@dataclass(frozen=True)
class DenseTransition(Part):
    """BN-ReLU-conv1x1-averagepool2x2 between dense blocks, as in DenseNet and the authors' code.

    The paper's text puts the convolution first.
    """

    in_channels: int
    out_channels: int

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels")

    def layers(self, inputs: Features) -> dict[str, Layer]:
        return {
            "norm": BatchNorm(self.in_channels),
            "conv": Conv(inputs[0], self.out_channels, size=1),
        }

    def outputs(self, inputs: Features) -> Features:
        height, width, _ = single_map(inputs, self.in_channels)
        _check_even(height, width)
        return ((height // 2, width // 2, self.out_channels),)


def _check_stride(unit: str, stride: int) -> None:
    if stride not in (1, 2):
        raise ValueError(f"{unit}.stride must be 1 or 2, got {stride!r}")


def _check_even(height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise ValueError(f"it halves the sides, which must be even, got {height}x{width}")
