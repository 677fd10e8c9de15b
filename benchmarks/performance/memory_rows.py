"""PyTorch: what training all exits takes in memory over training the last one alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.live_memory import LiveMemory
from benchmarks.performance.rows import Options, Row, tell
from loss_balance.backends.torch import Balancer
from loss_balance.experiments.training.learners.torch import exit_losses
from loss_balance.reference_models import families
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.torch import AnytimeNet

TABLE = "PyTorch, peak memory of a training step with all exits over one with the last alone"
NETWORKS = ("resann-3-16", "resann-9-16", "resann-9-32", "denseann-6-12", "msdnet-18")
BATCH = 16


def peak(spec: AnytimeSpec) -> int:
    """Bytes of one step at its peak, beyond weights and their gradients."""
    net = AnytimeNet(spec)
    balance = Balancer(len(spec.exits))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    with LiveMemory() as memory:
        balance(exit_losses(torch.stack(net(images)), labels).mean(dim=1)).backward()
    return memory.peak


def rows(options: Options) -> Iterator[Row]:
    """A figure per network; counted, so there is no spread."""
    for name in NETWORKS[: 1 if options.quick else None]:
        spec = families.get(name, num_classes=10)
        alone = spec.single_exit(len(spec.exits) - 1)
        yield Row.of(TABLE, name, f"batch {BATCH}", [peak(spec) / peak(alone)])


if __name__ == "__main__":
    tell(rows)
