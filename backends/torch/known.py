"""What the host knows of the state without asking the device: that every loss has been seen."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor

AVAILABLE = dist.is_available()


class AllSeen:
    """Whether there is a value behind each average.

    That is found out where somebody looks at the values anyway. A loss that was seen stays so
    however often the balancer updates, hence it holds until somebody else writes to the averages:
    PyTorch counts that. Where processes are at work together, DDP may write and nobody counts.
    """

    def __init__(self) -> None:
        self._average: Tensor | None = None
        self._version = -1

    def note(self, average: Tensor) -> None:
        """It is so, of this buffer as it stands."""
        counted = version(average)
        if counted is not None and type(average) is Tensor:
            self._average, self._version = average, counted

    def holds(self, average: Tensor) -> bool:
        """Whether it is still so."""
        if average is not self._average or average._version != self._version:
            return False
        return not (AVAILABLE and dist.is_initialized())

    def go_on(self) -> None:
        """After the balancer itself has written to the averages, for which it held."""
        assert self._average is not None
        self._version = self._average._version

    def __reduce__(self) -> Any:
        return AllSeen, ()  # a copy has other buffers


def version(tensor: Tensor) -> int | None:
    """How often it was written to; nobody counts in inference mode."""
    return None if tensor.is_inference() else tensor._version
