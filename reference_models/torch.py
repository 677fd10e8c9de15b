"""The reference networks for PyTorch: images (B, C, H, W), logits (B, num_classes) per exit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError(
        "loss_balance.reference_models.torch needs PyTorch: pip install 'loss-balance[torch]'"
    ) from error
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.reference_models import parts, units
from loss_balance.reference_models.spec import AnytimeSpec
from loss_balance.reference_models.weights import Weights, check, initialise


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Epsilon 1e-5 and decay 0.9 (torch counts 1 - decay), as in every framework here."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Symmetric padding: what "same" means at stride 2 differs between frameworks."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class ConvStem(nn.Module):
    """One 3x3 convolution."""

    def __init__(self, stem: parts.ConvStem) -> None:
        super().__init__()
        self.conv = conv3x3(stem.in_channels, stem.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        y: Tensor = self.conv(x)
        return y


class ResidualUnit(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus the input, averaged and zero-padded where shapes change."""

    def __init__(self, unit: units.ResidualUnit) -> None:
        super().__init__()
        self.norm1 = batch_norm(unit.in_channels)
        self.conv1 = conv3x3(unit.in_channels, unit.out_channels, unit.stride)
        self.norm2 = batch_norm(unit.out_channels)
        self.conv2 = conv3x3(unit.out_channels, unit.out_channels)
        self.stride = unit.stride
        self.padding = (unit.out_channels - unit.in_channels) // 2

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


class LinearHead(nn.Module):
    """BN-ReLU-global average-linear."""

    def __init__(self, head: parts.LinearHead) -> None:
        super().__init__()
        self.norm = batch_norm(head.in_channels)
        self.linear = nn.Linear(head.in_channels, head.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, num_classes)."""
        logits: Tensor = self.linear(F.relu(self.norm(x)).mean(dim=(2, 3)))
        return logits


class AnytimeNet(nn.Module):
    """A network that predicts after several of its units.

        net = AnytimeNet(families.resann(9, 32))
        losses = [F.cross_entropy(logits, labels) for logits in net(images)]

    Submodules: `stem`, `units` (a list), `exits` (by index of the unit they follow).

    Args:
        spec: what to build.
        seed: of the first weights, `weights.initialise(spec, seed)`. On the meta device none are
            drawn.
    """

    def __init__(self, spec: AnytimeSpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        self.stem = ConvStem(spec.stem)
        self.units = nn.ModuleList(ResidualUnit(unit) for unit in spec.units)
        heads = zip(spec.exits, spec.heads, strict=True)
        self.exits = nn.ModuleDict({str(unit): LinearHead(head) for unit, head in heads})
        if not self.stem.conv.weight.is_meta:
            self.load_weights(initialise(spec, seed))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (B, num_classes) of every exit, for images (B, C, H, W).

        Raises:
            ValueError: images of another shape than the spec's.
        """
        return list(self.anytime(x))

    def anytime(self, x: Tensor) -> Iterator[Tensor]:
        """As a call, one exit at a time: nothing deeper than the exits consumed is computed."""
        height, width, channels = self.spec.input_shape
        if tuple(x.shape[1:]) != (channels, height, width):
            raise ValueError(
                f"expected images of shape (B, {channels}, {height}, {width}), got {tuple(x.shape)}"
            )
        return self._answers(x)

    def _answers(self, x: Tensor) -> Iterator[Tensor]:
        features = self.stem(x)
        for i, unit in enumerate(self.units):
            features = unit(features)
            if str(i) in self.exits:
                yield self.exits[str(i)](features)

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes arrays under the spec's names and in its layouts, from any framework.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        check(self.spec, weights)
        for name, tensor in self._tensors():
            tensor.copy_(torch.from_numpy(_to_torch(np.array(weights[name]))))

    def dump_weights(self) -> Weights:
        """Copies of all weights for `load_weights` of any framework, in float32 or wider."""
        return {
            name: _from_torch(tensor.detach().to("cpu", _wide(tensor.dtype)).numpy())
            for name, tensor in self._tensors()
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters and running statistics by the spec's names."""
        for name in (*self.spec.parameters(), *self.spec.statistics()):
            part, layer, field = name.split(".")
            module = getattr(self._part(part), layer)
            yield name, getattr(module, _ATTRIBUTES[field])

    def _part(self, name: str) -> nn.Module:
        if name.startswith("unit"):
            return self.units[int(name.removeprefix("unit"))]
        if name.startswith("exit"):
            return self.exits[name.removeprefix("exit")]
        return self.stem


_ATTRIBUTES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)  # NumPy has no bfloat16


def _to_torch(array: np.ndarray) -> np.ndarray:
    """HWIO to OIHW, (in, out) to (out, in); vectors stay."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: np.ndarray) -> np.ndarray:
    """The inverse of `_to_torch`, as a contiguous copy."""
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T, order="C")
