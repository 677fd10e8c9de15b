"""PyTorch on the device: its name, timing by CUDA events, captured graphs, memory."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo

from benchmarks.timing import Step, Timed, on_host


def start(device: str) -> str:
    """Sets up the process for `device`; what its maker calls it.

    Raises:
        RuntimeError: there is no CUDA device: nothing falls back to the CPU unasked.
    """
    if device == "cpu":
        torch.set_num_threads(1)
        return "CPU, one thread"
    if not torch.cuda.is_available():
        raise RuntimeError("a CUDA device must be at hand for --device cuda, got none")
    torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by default
    torch.backends.cudnn.benchmark = True
    return torch.cuda.get_device_name()


def timer(device: str) -> Timed:
    """A timer by CUDA events, the device's own clock; on a CPU by the host's."""
    return _by_events if device == "cuda" else on_host()


def _by_events(step: Step, inner: int) -> float:
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begun.record()
    for _ in range(inner):
        step()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3


def captured(step: Step, pool: Any = None) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `step`, warmed up before on a stream of its own, as capturing needs it.

    Args:
        step: computes on the current device, from and to tensors that stay.
        pool: memory of another graph, `graph.pool()`; the two must then be replayed in the order
            of capture.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph


def graphed(step: Step) -> Step:
    """`step` as a replay of its graph."""
    return captured(step).replay


def free() -> None:
    """Gives back what nothing uses any more, compiled code too."""
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Memory:
    """The most memory that was in use since this was made, beyond what was in use then."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = 0
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def peak_mib(self) -> float | None:
        """MiB; None on a CPU, where PyTorch does not count."""
        if self.device != "cuda":
            return None
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - self.before) / 2**20


def compiling(*, smallest: bool) -> dict[str, Any]:
    """Arguments of `torch.compile`: no graph breaks; at the smallest setting no Inductor."""
    torch._dynamo.config.recompile_limit = 64  # a unit's code stands for units of many shapes
    return {
        "fullgraph": True,
        "dynamic": False,
        "backend": "aot_eager" if smallest else "inductor",
    }
