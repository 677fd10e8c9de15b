"""AdaLoss for PyTorch: `loss = Balancer(n)(losses)` in place of `loss = sum(losses)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError(
        "loss_balance.backends.torch needs PyTorch: pip install 'loss-balance[torch]'"
    ) from error
import torch.distributed as dist
from torch import Tensor, nn

from loss_balance.adaloss import as_scheme
from loss_balance.backends.interface import (
    NEGATIVE,
    check_exported,
    check_mask,
    check_names,
    in_order,
    not_scalar,
    weight_metrics,
)
from loss_balance.base import Scheme


class Balancer(nn.Module):
    """Weighted sum of losses whose weights follow the losses.

        balance = Balancer(AdaLoss(3)).to(device)
        loss = balance([loss1, loss2, loss3])
        loss.backward()

    The state lives in buffers, so `state_dict()` saves it when the balancer is part of the model or
    saved beside it. It keeps its dtype through `.half()` and its place in memory, so captured CUDA
    graphs stay valid. `eval()` freezes it. No gradient flows through the weights. The first eager
    call looks at the values once to refuse negative losses; after it no step waits for the device.

    Across processes the averages follow the mean loss over all replicas that have it (one
    all-reduce), so every replica holds the same weights; the gradients are then averaged by DDP as
    usual.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        dtype: of the state, whatever the losses' dtype.
        process_group: the replicas, default: all processes, if torch.distributed is initialised.
        sync: False keeps each process to itself.
    """

    average: Tensor
    weights: Tensor
    step: Tensor
    skipped: Tensor

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        process_group: dist.ProcessGroup | None = None,
        sync: bool = True,
    ) -> None:
        super().__init__()
        self.scheme = as_scheme(scheme)
        self.names = check_names(names, self.scheme.num_losses)
        self.process_group = process_group
        self.sync = sync
        self._checked = False
        state = self.scheme.init(torch, dtype)
        self._state_type = type(state)
        for name, value in state._asdict().items():
            self.register_buffer(name, value)

    def forward(
        self,
        losses: Sequence[Tensor | None] | Mapping[str, Tensor | None] | Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum, a scalar in the losses' dtype; updates the state in training mode.

        Args:
            losses: a sequence or mapping of scalars, or a vector of shape (num_losses,), which is
                the fast path. None is a loss that is absent in this step.
            mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN,
                and its gradient are then left out.

        Raises:
            ValueError: wrong count, shape or names; a negative loss in the first eager call.
        """
        vector, present = self._gather(losses, mask)
        if not (torch.compiler.is_compiling() or self._checked):
            self._check_first(vector)
        # In evaluation a copy: backward must not see what a later training step writes.
        weights = self._observe(vector.detach(), present) if self.training else self.weights.clone()
        return torch.dot(weights.to(vector.dtype), vector)

    def _gather(self, losses: Any, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The losses as one vector, zero where absent, and which are present (None: all)."""
        ordered = in_order(losses, self.names, self.scheme.num_losses)
        present = None
        if isinstance(ordered, list):
            ordered, present = _stack(ordered)
        if not ordered.is_floating_point():
            raise ValueError(f"losses must be real floating point, got {ordered.dtype}")
        if mask is not None:
            mask = torch.as_tensor(mask, dtype=torch.bool, device=ordered.device)
            check_mask(mask.shape, self.scheme.num_losses)
            ordered = torch.where(mask, ordered, 0.0)
            present = mask if present is None else present & mask
        return ordered, present

    def _observe(self, losses: Tensor, present: Tensor | None) -> Tensor:
        """Updates the state with detached losses and returns the new weights."""
        losses = losses.to(self.average.dtype)
        if self.sync and _world_size(self.process_group) > 1:
            losses, present = _mean_over_replicas(losses, present, self.process_group)
        old = self._state_type(*(getattr(self, name) for name in self._state_type._fields))
        new = self.scheme.update(old, losses, torch, present)
        # In place, for CUDA graphs, but never onto itself: backward holds a fixed scheme's weights.
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
        for floats in (True, False):  # one fused kernel takes one dtype
            pairs = [(a, b) for a, b in changed if a.is_floating_point() == floats]
            if pairs:
                torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])
        weights: Tensor = new.weights
        return weights

    @torch.no_grad()
    def _check_first(self, losses: Tensor) -> None:
        """Refuses negative losses before the first update, at the price of one wait, once."""
        if losses.is_cuda and torch.cuda.is_current_stream_capturing():
            return  # a captured stream cannot be read
        if not self.step and bool((losses < 0).any()):  # absent ones are zero here
            raise ValueError(NEGATIVE.format(losses.tolist()))
        self._checked = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """`.to()`, `.half()` and their like: the state moves between devices, never in dtype."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]

    def export_state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays that `import_state` of any backend takes."""
        return {name: getattr(self, name).cpu().numpy().copy() for name in self._state_type._fields}

    @torch.no_grad()
    def import_state(self, exported: Mapping[str, Any]) -> None:
        """Continues from `export_state()` of any backend; ValueError if it does not fit."""
        for name, value in check_exported(exported, self.scheme)._asdict().items():
            getattr(self, name).copy_(torch.from_numpy(np.array(value)))

    def metrics(self) -> dict[str, float]:
        """`{"loss_weight/<name>": weight}`; a weight at gamma is on AdaLoss's floor.

        Waits for the device: call it as often as you log, not in every step.
        """
        return weight_metrics(self.weights.tolist(), self.names)

    def extra_repr(self) -> str:
        return f"{self.scheme}" + (f", names={list(self.names)}" if self.names else "")


def _stack(losses: list[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Scalars to a vector; an absent one is 0 and, if there is any, False in the second result."""
    absent = False
    for i, loss in enumerate(losses):
        if loss is None:
            absent = True
        elif not isinstance(loss, Tensor):
            raise ValueError(f"each loss must be a tensor, loss {i} is a {type(loss).__name__}")
        elif loss.dim():
            raise not_scalar(i, loss.shape)
    if not absent:
        return torch.stack(losses), None  # type: ignore[arg-type]
    like = next(loss for loss in losses if loss is not None).detach()
    zero, one = torch.zeros_like(like), torch.ones_like(like)  # filled on the device, no copy to it
    present = torch.stack([zero if loss is None else one for loss in losses]) > 0
    return torch.stack([zero if loss is None else loss for loss in losses]), present


def _world_size(group: dist.ProcessGroup | None) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _mean_over_replicas(
    losses: Tensor, present: Tensor | None, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """(mean of each loss over the replicas that have it, whether any has it), one all-reduce.

    A NaN on one replica makes the mean NaN on all, so all skip it alike.
    """
    has = torch.ones_like(losses) if present is None else present.to(losses.dtype)
    sums = torch.stack((losses, has))  # absent losses are 0 already
    dist.all_reduce(sums, group=group)
    return sums[0] / sums[1], sums[1] > 0
