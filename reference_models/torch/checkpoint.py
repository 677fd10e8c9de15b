"""Parts computed once more in the backward pass, so that what is inside them need not be kept.

What a unit concatenates is not kept either: here a map is a tuple of pieces along the channels, and
the map of a dense unit shares all pieces but the new one with the unit's input. Memory then grows
with the channels of a block, not with their square (Pleiss et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loss_balance.reference_models.torch.multiscale import MultiScaleUnit
from loss_balance.reference_models.torch.units import DenseUnit

CONCATENATING = (DenseUnit, MultiScaleUnit)


def recompute(part: nn.Module, features: Any) -> Any:
    """`part(features)`, of maps in pieces; of a unit that concatenates only what it adds."""
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if not torch.compiler.is_compiling():  # compiled, statistics are written once anyway
        options["context_fn"] = lambda: (nullcontext(), _buffers_kept(part))
    return checkpoint(_run, part, features, **options)


def recompute_unit(unit: nn.Module, features: Any) -> Any:
    """`unit(features)`, of maps in pieces and in pieces.

    Args:
        unit: a unit or the stem.
        features: a tensor, or a tuple of pieces for the map, or a list of those for all scales.
    """
    made = recompute(unit, features)
    if isinstance(unit, DenseUnit):
        return (*features, made)
    if isinstance(unit, MultiScaleUnit):
        return [(*old, *new) for old, new in zip(features[unit.dropped :], made, strict=True)]
    return [(x,) for x in made] if isinstance(made, list) else (made,)


def _run(part: nn.Module, features: Any) -> Any:
    maps: Any = [_joined(x) for x in features] if isinstance(features, list) else _joined(features)
    # Called as a module, not by a method: hooks, those of FSDP among them, must run.
    return part(maps, only_new=True) if isinstance(part, CONCATENATING) else part(maps)


def _joined(pieces: Tensor | tuple[Tensor, ...]) -> Tensor:
    if isinstance(pieces, Tensor):
        return pieces
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


@contextmanager
def _buffers_kept(part: nn.Module) -> Iterator[None]:
    """Computed again, a batch must not enter the running statistics a second time."""
    kept = [
        (module, name, buffer)
        for module in part.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)
