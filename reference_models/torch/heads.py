"""Heads of exits on any PyTorch network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Shape = tuple[int, ...]  # of features, without the batch
Head = nn.Module | Callable[[Shape], nn.Module] | None


def head_for(wanted: Head, shape: Shape, num_classes: int) -> nn.Module:
    """The head that is meant: itself, what a function makes of the shape, or the default one."""
    if wanted is None:
        return default_head(shape, num_classes)
    return wanted if isinstance(wanted, nn.Module) else wanted(shape)


def default_head(shape: Shape, num_classes: int) -> nn.Module:
    """BN, ReLU, global average pool, linear for maps (C, H, W), as in the paper's networks.

    For tokens (N, C) LayerNorm, their mean, linear; for a vector (C,) linear.

    Raises:
        ValueError: features of another rank.
    """
    if len(shape) == 3:
        pool = nn.AdaptiveAvgPool2d(1)
        first = nn.BatchNorm2d(shape[0]), nn.ReLU(), pool, nn.Flatten()
        return nn.Sequential(*first, nn.Linear(shape[0], num_classes))
    if len(shape) == 2:
        return nn.Sequential(nn.LayerNorm(shape[1]), _Mean(), nn.Linear(shape[1], num_classes))
    if len(shape) == 1:
        return nn.Linear(shape[0], num_classes)
    raise ValueError(f"a default head takes (C, H, W), (N, C) or (C,), got features {shape}")


class _Mean(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)
