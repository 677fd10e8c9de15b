"""Host syncs, and operators, of a training step: counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from benchmarks.dispatches import SYNCS, Dispatches
from benchmarks.peers.adapters.ours import Plain
from benchmarks.peers.findings import Finding, failed
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import EPOCH, batches
from benchmarks.peers.training import Run

TABLE = "What runs"
WAITS, MORE = "host syncs a step", "operators more than sum(losses)"


class Copies(TorchFunctionMode):
    """Tensors that are asked for as values of the host; on a CPU no operator tells of them.

    `x.cpu().numpy()` is one, as on a device the second of the two no longer waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._here: list[object] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "cpu":
            self._here.append(result)
        waited = name == "numpy" and any(args[0] is each for each in self._here)
        self.count += name in {"cpu", "numpy", "tolist"} and not waited
        return result


class Waits(Dispatches):
    """Operators, and how many of them the host waits for: also to learn what a mask picks."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        picked = args[1] if name in {"index", "index_put", "index_put_"} else ()
        masks = [each for each in picked if each is not None and each.dtype == torch.bool]
        self.waits += bool(masks) or (name in SYNCS and not in_optimizer())
        return super().__torch_dispatch__(func, types, args, kwargs)


def in_optimizer() -> bool:
    """Whether an optimiser of PyTorch asks: its count of steps is on the host on any device."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").startswith("torch.optim."):
            return True
        frame = frame.f_back
    return False


class Looked(Run):
    """A run that does not look at its gradients, which would be syncs of its own."""

    def finite(self) -> bool:
        return True


def counted(kind: type[Way]) -> tuple[float, float]:
    """(syncs, operators that compute) of a step: the mean over an epoch, once it runs."""
    run, every = Looked(kind), batches(3 * EPOCH)
    for batch in every[: 2 * EPOCH]:
        run.step(batch)
    with Copies() as copies, Waits() as seen:
        for batch in every[2 * EPOCH :]:
            run.step(batch)
    return (copies.count + seen.waits) / EPOCH, len(seen.kernels) / EPOCH


def probe(kind: type[Way]) -> Iterator[Finding]:
    """Two cells."""
    try:
        torch.manual_seed(0)
        syncs, operators = counted(kind)
        more = operators - counted(Plain)[1]
        yield Finding(TABLE, "", WAITS, f"{syncs:g}", syncs)
        yield Finding(TABLE, "", MORE, f"{more:g}", more)
    except Exception as error:  # of any package, of any kind: that is the finding
        yield Finding(TABLE, "", WAITS, failed(error))
