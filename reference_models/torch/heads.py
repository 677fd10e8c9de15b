"""Heads of exits on any PyTorch network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Shape = tuple[int, ...]  # of features, without the batch
Head = nn.Module | Callable[[Shape], nn.Module] | None


def head_for(name: str, wanted: Head, shape: Shape, num_classes: int) -> nn.Module:
    """The head that is meant: itself, what a function makes of the shape, or the default one."""
    if wanted is None:
        return default_head(name, shape, num_classes)
    made = wanted(shape) if callable(wanted) and not isinstance(wanted, nn.Module) else wanted
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"heads must be modules, functions of the features' shape that return one, or None, "
            f"got {made!r} for {name!r}"
        )
    return made


def default_head(name: str, shape: Shape, num_classes: int) -> nn.Module:
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
    raise ValueError(
        "the default head must read maps (C, H, W), tokens (N, C) or a vector, got "
        f"{name!r} of shape {shape} without the batch: give it a head of your own"
    )


class _Mean(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)
