"""A balancer's state in checkpoints of PyTorch: with whose it is, and checked when it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_balance.backends.fields import IDENTITY, NEW
from loss_balance.backends.identity import identity, read_identity
from loss_balance.backends.torch.state import StateInBuffers, to_numpy
from loss_balance.schemes.base import AnyState

EXTRA = "_extra_state"  # nn.Module's key for what `get_extra_state` gives
LOADED = "_is_hf_initialized"  # transformers' mark on a tensor whose values a checkpoint had


class LoadedState(StateInBuffers):
    """The part of the balancer that knows checkpoints."""

    _identity: np.ndarray | None = None  # that came with buffers that a loader put here itself
    _parts: frozenset[str] = frozenset()  # buffers that were loaded one at a time
    _strict: bool | None = None  # of `load_state_dict`, where this is the module it was called of

    def get_extra_state(self) -> Tensor:
        """Whose state it is, as bytes: every format of checkpoints takes a tensor."""
        if self._identity is not None:
            return torch.from_numpy(self._identity.copy())
        return torch.from_numpy(identity(self.scheme, self.names, self._calls))

    def set_extra_state(self, state: Any) -> None:
        """Takes what loaders bring that put buffers in their places themselves."""
        if not self._unborn:
            return
        found = to_numpy(state)
        try:
            read_identity(found)
        except ValueError:  # transformers 4 brings empty memory for what a checkpoint lacks
            return
        self._identity = found

    def export_state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays that `import_state` of any framework takes.

        Beside the fields of the scheme's state there is "identity", which says whose state it is.
        Warns of a loss that was bad in more than half of the last 100 updates.
        """
        self.wake()
        return self._put_here() if self._unborn else super().export_state()

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._identity, self._parts = None, frozenset()

    def wake(self, *, refuse: bool = False) -> None:
        """Takes what a loader put into buffers from the meta device, or begins fresh.

        Args:
            refuse: whether to raise where it is another balancer's state; else it waits for
                `import_state(export_state(), strict=False)`, or the first call, which refuses.

        Raises:
            ValueError: see `identity.adopted`.
        """
        if not self._unborn or self.is_meta():
            return
        arrays = self._put_here()
        if not arrays:
            self.reset_parameters()
            return
        try:
            state, calls = self.adopted(arrays)
        except ValueError:
            if refuse:
                raise
            return
        self.write_state(state)
        self.state_came(state, calls)

    def _put_here(self) -> dict[str, np.ndarray]:
        """What a loader put here, nothing if that is not a whole state."""
        fields = self._state_type._fields
        marked = {name for name in fields if getattr(getattr(self, name), LOADED, False)}
        marked |= self._parts
        if not set(fields) - set(NEW) <= marked:
            return {}
        arrays = {name: to_numpy(getattr(self, name)) for name in marked}
        return arrays if self._identity is None else arrays | {IDENTITY: self._identity}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads as every module does; `strict=False` takes other hyperparameters too."""
        self._strict = strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self._strict = None

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,  # noqa: ARG002  # PyTorch says True here, whatever it was told
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Loads what fits, all or nothing; what does not is named in PyTorch's own error.

        Other hyperparameters are told as unexpected keys, since that is what PyTorch makes an error
        of if strict and goes on with otherwise.
        """
        fields = self._state_type._fields
        given = {name: state_dict[prefix + name] for name in fields if prefix + name in state_dict}
        known = {prefix + name for name in (*fields, EXTRA)}
        mine = (key for key in state_dict if key.startswith(prefix))
        unexpected_keys += [key for key in mine if key not in known]
        assign = bool(local_metadata.get("assign_to_params_buffers"))
        if self._strict is False and assign and self._one_by_one(state_dict, given):
            return
        if not given:
            missing_keys += [prefix + name for name in fields]
            return
        if any(isinstance(value, Tensor) and value.is_meta for value in given.values()):
            return  # a state without values: what is here stays
        arrays = {name: _on_host(value) for name, value in given.items()}
        if prefix + EXTRA in state_dict:
            arrays[IDENTITY] = _on_host(state_dict[prefix + EXTRA])
        found = self._if_not_strict(arrays, prefix, unexpected_keys, error_msgs)
        if found is not None:
            if self.is_meta() and assign:
                device = next((v.device for v in given.values() if isinstance(v, Tensor)), "cpu")
                self.materialise(torch.device(device))
            self.write_state(found[0])
            self.state_came(*found)

    def _one_by_one(self, state_dict: Mapping[str, Any], given: Mapping[str, Tensor]) -> bool:
        """Takes one buffer as it is, if that is how they come: transformers 4 loads so."""
        if len(given) + (EXTRA in state_dict) != 1:
            return False
        self._unborn, self._checked = True, False
        for name, value in given.items():
            setattr(self, name, value)
            self._parts |= {name}
        if not given:
            self.set_extra_state(state_dict[EXTRA])
        return True

    def _if_not_strict(
        self,
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> tuple[AnyState, int] | None:
        """(state, calls), or None where they are refused."""
        try:
            return self.adopted(arrays)
        except ValueError as error:
            message = f"{prefix or 'Balancer'}: {error}"
        try:
            lenient = self.adopted(arrays, strict=False)
        except ValueError:
            lenient = None
        if lenient is None or self._strict:
            error_msgs.append(message)
            return None
        unexpected_keys.append(message)
        return lenient


def _on_host(value: Any) -> Any:
    """As an array, or as it is where NumPy has nothing like it: `adopted` says so."""
    try:
        return to_numpy(value)
    except (TypeError, ValueError, RuntimeError):
        return value
