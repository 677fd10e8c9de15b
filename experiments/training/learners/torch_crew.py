"""What PyTorch's learner needs to be one of several: the crew, the wrapped network, batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.crew import Crew, refuse_unequal
from loss_balance.experiments.training.engine import Engine


class TorchCrew:
    """The processes of the default group."""

    def __init__(self, device: torch.device) -> None:
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()
        self.part: slice[int, Any, int] = slice(self.rank, None, self.size)
        self.device = device

    def wait(self) -> None:
        self._summed(torch.zeros(1))

    def all(self, agreed: bool) -> bool:
        return self._summed(torch.tensor([float(agreed)])).item() == self.size

    def check_equal(self, what: str, values: Sequence[float]) -> None:
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine)
        refuse_unequal(what, [theirs.tolist() for theirs in every])

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = self._summed(torch.from_numpy(values)).cpu().numpy()
        return summed / self.size

    def _summed(self, values: Tensor) -> Tensor:
        summed = values.to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed


def device_of(name: str, rank: int = 0) -> torch.device:
    """The device of the process of that rank on its machine; UserError if there is none."""
    if name == "cuda" and rank >= torch.cuda.device_count():
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is at hand: choose --device cpu")
        raise UserError(f"--devices must be at most {torch.cuda.device_count()} here")
    return torch.device(name, rank) if name == "cuda" else torch.device(name)


def norms_of_all(norms: Tensor) -> Tensor:
    """Of the mean of all processes' gradients: each has other rows, so their squares add up."""
    squares = norms.square()
    dist.all_reduce(squares)
    return squares.sqrt() / dist.get_world_size()


def shared(net: nn.Module, engine: Engine, crew: Crew) -> nn.Module:
    """The network as the whole crew trains it; itself for a crew of one.

    Batch norm over the whole batch makes the steps those of one device, to rounding.
    """
    if crew.size == 1:
        return net
    on_gpu = engine.device == "cuda"
    if engine.batch_norm == "global":
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else _normed_together
        net = convert(net)
    if engine.strategy == "fsdp":
        return _sharded(net, "cuda" if on_gpu else "cpu", crew.size)
    return nn.parallel.DistributedDataParallel(net)  # local running means are those of rank 0


def _sharded(net: nn.Module, device: str, size: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (size,))
    units: Any = net.units
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(net, mesh=mesh)  # in place
    return net


def _normed_together(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = TogetherNorm
    return net


class _Summed(torch.autograd.Function):
    """Over all processes; each has the gradient of all their losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Summed.forward(ctx, gradient)


def _summed(x: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(x)  # type: ignore[no-untyped-call]
    return summed


class TogetherNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which are of one size.

    `nn.SyncBatchNorm` is for GPUs alone. The variance is taken about the mean of all: two
    all-reduces, and no loss of digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if not self.training:
            return super().forward(x)
        size = dist.get_world_size()
        mean = _summed(x.mean(dim=(0, 2, 3))) / size
        centred = x - mean[:, None, None]
        variance = _summed(centred.square().mean(dim=(0, 2, 3))) / size
        self._observe(mean, variance, size * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _observe(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
