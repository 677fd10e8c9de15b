"""Which operators of PyTorch reach the device; needs torch."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {"detach", "unbind", "select", "slice", "expand", "view", "alias"}
SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}


class Dispatches(TorchDispatchMode):
    """Names of the operators that reach the device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self):
        return [name for name in self.names if name not in VIEWS]
