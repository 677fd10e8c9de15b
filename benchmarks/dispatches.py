"""Which operators of PyTorch reach the device."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {"detach", "unbind", "select", "slice", "expand", "view", "alias"}
SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}


class Dispatches(TorchDispatchMode):
    """Names of the operators that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self) -> list[str]:
        """Those that compute."""
        return [name for name in self.names if name not in VIEWS]
