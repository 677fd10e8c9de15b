"""A balancer's state in the buffers of a module: kept in place, moved, given its first values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_balance.backends.state import StatefulBalancer
from loss_balance.backends.torch.inputs import wrapped
from loss_balance.schemes.base import AnyState


class StateInBuffers(StatefulBalancer, nn.Module):
    """The part of the balancer that knows where its state lies."""

    average: Tensor
    weights: Tensor
    step: Tensor
    skipped: Tensor
    recent: Tensor
    pending: Tensor
    _state_type: Any
    _dtype: torch.dtype
    _unborn: bool  # on the meta device, or from there and nobody has given it values yet
    _own: Tensor | None  # this replica's `pending`: DDP may overwrite the buffer

    def hold(self, state: AnyState) -> None:
        """Makes the buffers."""
        self._state_type, self._own = type(state), None
        self._dtype, self._unborn = state.weights.dtype, state.weights.is_meta
        for name, value in state._asdict().items():
            self.register_buffer(name, value)

    def held(self) -> AnyState:
        """The state as it stands in the buffers, no copy."""
        buffers = self._buffers  # `getattr` of a module costs as much as a small kernel
        return self._state_type(*[buffers[name] for name in self._state_type._fields])

    @torch.no_grad()
    def keep(self, old: AnyState, new: AnyState) -> None:
        """Writes the new state in place of the held one, for CUDA graphs.

        But never a tensor onto itself: backward holds a fixed scheme's weights.
        """
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
        # vmap has no rule for the fused copy. And of Inductor's kernel with one, where the weights
        # are no output, the weights came out as of averages that it had written before.
        if torch.compiler.is_compiling() or (changed and wrapped(changed[0][1])):
            for a, b in changed:
                a.copy_(b)
            return
        for floats in (True, False):  # one fused kernel takes one dtype
            pairs = [pair for pair in changed if pair[0].is_floating_point() == floats]
            if pairs:
                torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])

    def noted(self, *, alone: bool) -> Tensor:
        """What earlier calls of this process have noted since the last update."""
        return self.pending if alone or self._own is None else self._own

    @torch.no_grad()
    def note(self, pending: Tensor, *, alone: bool) -> None:
        """Keeps it for the calls to come, in place; in the buffer, for checkpoints, in any case."""
        self.pending.copy_(pending)
        if not alone:
            if self._own is None:
                self._own = torch.empty_like(pending)
            self._own.copy_(pending)
        self._waiting = True

    def clear_own(self) -> None:
        """Empties the own copy: after an update, or when the buffers are what counts again."""
        if self._own is not None:
            self._own.zero_()

    def check_dtype(self) -> None:
        """ValueError where somebody has cast the buffers: averages in bfloat16 stand still."""
        if self.average.dtype != self._dtype:
            raise ValueError(
                f"the state must stay in {self._dtype}, got {self.average.dtype}: keep the "
                "balancer outside of what casts its buffers; for FSDP's "
                "MixedPrecision(buffer_dtype=...) say ignored_modules=[balance]"
            )

    def is_meta(self) -> bool:
        """Whether the state, or a part of it, has no memory."""
        return any(value.is_meta for value in self.held())

    def read_state(self) -> AnyState:
        self.wake()
        return on_host(self.held())

    @torch.no_grad()
    def write_state(self, state: AnyState) -> None:
        if self.is_meta():
            return
        if self._unborn:  # whoever materialised it may have chosen another dtype
            self.materialise(self.average.device)
        for name, value in state._asdict().items():
            getattr(self, name).copy_(torch.from_numpy(np.array(value)))

    def state_dtype(self) -> np.dtype:
        return to_numpy(torch.empty((), dtype=self._dtype, device="cpu")).dtype

    def materialise(self, device: torch.device) -> None:
        """Gives the buffers memory of their own in the right dtype, values to follow."""
        with torch.device(device):
            like = self.scheme.init(torch, self._dtype)
        for name, value in like._asdict().items():
            setattr(self, name, value)

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._own, self._unborn = None, self.is_meta()

    def reset_parameters(self) -> None:
        """Begins anew, as `reset()`: what PyTorch's loops over modules call."""
        self.reset()

    def wake(self) -> None:
        """Gives the state its first values, if it is from the meta device and has none yet.

        To be called wherever the state is looked at; `LoadedState` knows of loaders.
        """
        if self._unborn and not self.is_meta():
            self.reset_parameters()

    def train(self, mode: bool = True) -> Any:
        """Sets the mode; loops and loaders call it first, before anything is compiled."""
        self.wake()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """`.to()`, `.half()` and their like: the state moves between devices, never in dtype.

        Where values are lost, in `to_empty()`, it begins anew.
        """

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.wake()
        before = self.average
        moved = super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        self._own = None
        if self.is_meta():
            self._unborn = True
        elif before.is_meta or not _keeps_values(fn, before):
            self.reset_parameters()
        return moved


def on_host(state: AnyState) -> AnyState:
    """A state of NumPy arrays; waits for the device."""
    return type(state)(*(to_numpy(value) for value in state))


def to_numpy(tensor: Any) -> np.ndarray:
    """A copy on the host; from bfloat16 too, which NumPy lacks."""
    if not isinstance(tensor, Tensor):
        return np.asarray(tensor)
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy())


@torch.no_grad()
def _keeps_values(fn: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether `fn` gives a tensor of the same values: `to_empty` hands over one that does not."""
    probe = torch.arange(64, dtype=like.dtype, device=like.device) % 7.0 + 1.0  # exact if narrow
    found = fn(probe)
    if found.layout != torch.strided:
        return True
    kept = bool((found.to(probe) == probe).all())
    for tensor in (probe, found):
        tensor.zero_()  # or the next one might find these values in its empty memory
    return kept
