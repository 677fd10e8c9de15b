"""What goes into a balancer of PyTorch: scalars to a vector, and whether values can be seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loss_balance.backends.interface import check_scalars


def eager(*tensors: Tensor) -> bool:
    """Whether there are values to look at: not while compiled, captured, vmapped or on meta."""
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:  # no generator: this is asked at every step
        if tensor.is_meta or wrapped(tensor):
            return False
        if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
            return False
    return True


def wrapped(tensor: Tensor) -> bool:
    """Whether a transform of `torch.func` is at work on it."""
    found: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return found


def as_vector(losses: Any, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """(losses as one vector, 0 where absent; which are present, None where all are).

    Args:
        losses: a vector, or a list of scalar tensors, numbers and None.
        like: the device of what has none.
    """
    if isinstance(losses, Tensor):
        return losses, None
    if not isinstance(losses, list):
        raise ValueError(
            f"losses must be tensors (torch.as_tensor makes one), got a {type(losses).__name__}"
        )
    for loss in losses:
        if not isinstance(loss, Tensor) or loss.dim():
            break
    else:
        return torch.stack(losses), None
    check_scalars(getattr(loss, "shape", ()) for loss in losses)
    for i, loss in enumerate(losses):
        if loss is not None and not isinstance(loss, (Tensor, int, float)):
            kind = type(loss).__name__
            raise ValueError(f"each loss must be a tensor or number, loss {i} is a {kind}")
    return _stack(losses, like)


def _stack(losses: list[Any], like: Tensor) -> tuple[Tensor, Tensor | None]:
    """The vector and mask of a list in which some losses are numbers or absent."""
    first = next((loss for loss in losses if isinstance(loss, Tensor)), None)
    if first is None and all(loss is None for loss in losses):
        # A leaf, so that backward works on a step without any loss.
        nothing = torch.zeros(len(losses), device=like.device, requires_grad=True)
        return nothing, torch.zeros(len(losses), dtype=torch.bool, device=like.device)
    if first is None:
        first = torch.zeros((), device=like.device)
    zero = torch.zeros_like(first, requires_grad=False)  # filled on the device, no copy to it

    def scalar(loss: Any) -> Tensor:
        if isinstance(loss, Tensor):
            return loss
        return zero if loss is None else torch.full_like(zero, loss)

    vector = torch.stack([scalar(loss) for loss in losses])
    if all(loss is not None for loss in losses):
        return vector, None
    one = torch.ones_like(zero)
    return vector, torch.stack([zero if loss is None else one for loss in losses]) > 0
