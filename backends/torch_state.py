"""A balancer's state in the buffers of a module: kept, saved, loaded, materialised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_balance.backends.identity import IDENTITY, adopted, identity
from loss_balance.backends.state import StatefulBalancer
from loss_balance.backends.torch_inputs import batched
from loss_balance.base import AnyState

EXTRA = "_extra_state"  # nn.Module's key for what `get_extra_state` gives


class StateInBuffers(StatefulBalancer, nn.Module):
    """The part of the balancer that knows where its state lies."""

    _state_type: Any
    _noted: Tensor | None  # this process' own `pending`, which DDP may overwrite in the buffer

    @staticmethod
    def checked_dtype(dtype: torch.dtype) -> torch.dtype:
        """`dtype`; ValueError for one in which a mean would stall."""
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"the state's dtype must be float32 or float64, got {dtype}")
        return dtype

    def hold(self, state: AnyState) -> None:
        """Makes the buffers."""
        self._state_type = type(state)
        self._noted = None
        for name, value in state._asdict().items():
            self.register_buffer(name, value)

    def held(self) -> AnyState:
        """The state as it stands in the buffers, no copy."""
        return self._state_type(*(getattr(self, name) for name in self._state_type._fields))

    @torch.no_grad()
    def keep(self, new: AnyState) -> None:
        """Writes the new state in place, for CUDA graphs.

        But never a tensor onto itself: backward holds a fixed scheme's weights.
        """
        self._noted = None
        changed = [(a, b) for a, b in zip(self.held(), new, strict=True) if a is not b]
        if not torch.compiler.is_compiling() and any(batched(b) for _, b in changed):
            for a, b in changed:  # vmap has no rule for the fused copy
                a.copy_(b)
            return
        for floats in (True, False):  # one fused kernel takes one dtype
            pairs = [(a, b) for a, b in changed if a.is_floating_point() == floats]
            if pairs:
                torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])

    def noted(self) -> Tensor:
        """What earlier calls of this process have noted since the last update."""
        return self.pending if self._noted is None else self._noted

    def note(self, pending: Tensor) -> None:
        """Keeps it for the calls to come, and in the buffer for checkpoints."""
        self.pending.copy_(pending)
        self._noted, self._waiting = pending, True

    def read_state(self) -> AnyState:
        return on_host(self.held())

    @torch.no_grad()
    def write_state(self, state: AnyState) -> None:
        for name, value in state._asdict().items():
            buffer = getattr(self, name)
            if not buffer.is_meta:
                buffer.copy_(torch.from_numpy(np.array(value)))

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._noted = None

    def reset_parameters(self) -> None:
        """Begins anew, as `reset()`: what PyTorch's loops over modules call."""
        self.reset()

    def moved(self, *, was_real: bool) -> None:
        """To be called after the buffers went elsewhere; from meta they begin anew."""
        self._noted = None
        if not was_real and not self.average.is_meta:
            self.reset_parameters()

    def get_extra_state(self) -> Tensor:
        """Whose state it is, as bytes: every format of checkpoints takes a tensor."""
        return torch.from_numpy(identity(self.scheme, self.names, self._calls))

    def set_extra_state(self, state: Any) -> None:
        """Nothing to do: loading has read it with the rest."""

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Loads what fits, all or nothing; what does not is named in torch's own error."""
        fields = self._state_type._fields
        given = {name: state_dict[prefix + name] for name in fields if prefix + name in state_dict}
        if not given:
            missing_keys += [prefix + name for name in fields]
            return
        known = {prefix + name for name in (*fields, EXTRA)}
        mine = (key for key in state_dict if key.startswith(prefix))
        unexpected_keys += [key for key in mine if key not in known]
        if any(value.is_meta for value in given.values()):
            return  # a state without values: what is here stays
        arrays = {name: _array(value) for name, value in given.items()}
        if prefix + EXTRA in state_dict:
            arrays[IDENTITY] = _array(state_dict[prefix + EXTRA])
        try:
            state, calls = adopted(arrays, self.scheme, self.names, strict=strict)
        except ValueError as error:
            error_msgs.append(f"{prefix or 'Balancer'}: {error}")
            return
        if self.average.is_meta and local_metadata.get("assign_to_params_buffers"):
            self._materialise(next(iter(given.values())).device)
        self.write_state(state)
        self.state_came(state, calls)

    def _materialise(self, device: torch.device) -> None:
        for name in self._state_type._fields:
            setattr(self, name, torch.empty_like(getattr(self, name), device=device))


def on_host(state: AnyState) -> AnyState:
    """A state of NumPy arrays; waits for the device."""
    return type(state)(*(_array(value) for value in state))


def _array(tensor: Tensor) -> np.ndarray:
    """A copy on the host; from bfloat16 too, which NumPy lacks."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy())
