"""What a balanced step is compared with in PyTorch: the combination alone, and small networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.peers.ways import Way, expressions, ours, torchjd
from benchmarks.timing import BASE, Step
from loss_balance.experiments.training.learners.torch import exit_losses
from loss_balance.reference_models import families
from loss_balance.reference_models.torch import AnytimeNet

STEPS = (BASE, "Balancer(AdaLoss)", "Balancer(AdaLoss), stacked losses")
Compiler = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def ways(count: int, device: str) -> dict[str, Way]:
    """All ways to combine `count` losses, by name."""
    return packages(count, device) | expressions(count, device)


def packages(count: int, device: str) -> dict[str, Way]:
    """Those that are called as they are installed: ours, and TorchJD's."""
    return ours(count, device) | dict(torchjd(count, device))


def combinations(
    count: int, device: str, of: Callable[[int, str], dict[str, Way]] = packages
) -> dict[str, Step]:
    """One forward and backward through each combination of `count` scalar losses alone."""
    leaf = torch.rand(count, device=device).add_(0.1).requires_grad_()

    def step(way: Way) -> Step:
        if way.stacked:
            return lambda: way.combine(leaf.clone()).backward()
        return lambda: way.combine([x.clone() for x in leaf.unbind()]).backward()

    return {name: step(way) for name, way in of(count, device).items()}


def training_step(name: str, exits: int, device: str, compiler: Compiler | None = None) -> Step:
    """A whole step of a small network with an exit after each layer: a worst case, about 1 ms.

    Args:
        name: of a way.
        exits: how many.
        device: cpu or cuda.
        compiler: `torch.compile` or its like, for forward, losses and combination.
    """
    torch.manual_seed(0)
    way = ways(exits, device)[name]
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(exits)).to(device)
    heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(exits)).to(device)
    parameters = [*layers.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    x, y = torch.randn(64, 64, device=device), torch.randint(10, (64,), device=device)

    def loss() -> Tensor:
        logits, h = [], x
        for layer, head in zip(layers, heads, strict=True):
            h = layer(h).relu()
            logits.append(head(h))
        if way.stacked:
            each = F.cross_entropy(torch.cat(logits), y.repeat(exits), reduction="none")
            return way.combine(each.view(exits, -1).mean(1))
        return way.combine([F.cross_entropy(z, y) for z in logits])

    return _step(loss if compiler is None else compiler(loss), optimizer)


def network_step(name: str, network: str, batch: int, device: str, dtype: torch.dtype) -> Step:
    """A whole step of a reference network on random images of CIFAR's size.

    Args:
        name: of a way.
        network: by name.
        batch: images of a step.
        device: cpu or cuda.
        dtype: that forward computes in.
    """
    torch.manual_seed(0)
    spec = families.get(network, num_classes=10)
    net = AnytimeNet(spec).to(device, memory_format=torch.channels_last)
    way = ways(len(spec.exits), device)[name]
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,), device=device)

    def loss() -> Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            each = exit_losses(torch.stack(net(x)), y).mean(dim=1)
        return way.combine(each if way.stacked else list(each.unbind()))

    return _step(loss, optimizer)


def _step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step
