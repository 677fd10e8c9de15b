"""What a balanced step is compared with in PyTorch: the combination alone, and a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.timing import BASE, Step
from loss_balance import AdaLoss, Constant
from loss_balance.backends.torch import Balancer

STEPS = (BASE, "Balancer(AdaLoss)", "Balancer(AdaLoss), stacked losses")


def combinations(count: int, device: str) -> dict[str, Step]:
    """One forward and backward through the combination of `count` scalar losses alone."""
    leaf = torch.rand(count, device=device).add_(0.1).requires_grad_()

    def step(combine: Callable[[list[Tensor]], Tensor]) -> Step:
        return lambda: combine([x.clone() for x in leaf.unbind()]).backward()

    def stacked(combine: Callable[[Tensor], Tensor]) -> Step:
        return lambda: combine(leaf.clone()).backward()

    variants = {
        BASE: step(sum),
        "torch.stack(losses).sum()": step(lambda losses: torch.stack(losses).sum()),
        "Balancer(AdaLoss)": step(Balancer(AdaLoss(count)).to(device)),
        "Balancer(Constant)": step(Balancer(Constant(count)).to(device)),
        "Balancer(AdaLoss), stacked losses": stacked(Balancer(AdaLoss(count)).to(device)),
    }
    return variants | {name: step(peer) for name, peer in peers(count, device)}


def peers(count: int, device: str) -> Iterator[tuple[str, Callable[[list[Tensor]], Tensor]]]:
    """Schemes of TorchJD that need the losses alone, as its users call them; none without it."""
    try:
        from torchjd import scalarization
    except ImportError:
        return
    for name, arguments in (("DWA", ()), ("UW", (count,)), ("GeometricMean", ())):
        if hasattr(scalarization, name):
            peer = getattr(scalarization, name)(*arguments)
            if isinstance(peer, nn.Module):
                peer = peer.to(device)
            yield f"torchjd {name}", lambda losses, peer=peer: peer(torch.stack(losses))


def training_step(
    name: str, exits: int, device: str, compiler: Callable[..., Callable[[], Tensor]] | None = None
) -> Step:
    """A whole step of a small network with an exit after each layer: a worst case, about 1 ms.

    Args:
        name: one of STEPS.
        exits: how many.
        device: cpu or cuda.
        compiler: `torch.compile` or its like, for forward, losses and combination.
    """
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(exits)).to(device)
    heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(exits)).to(device)
    balance = Balancer(AdaLoss(exits)).to(device)
    parameters = [*layers.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    x, y = torch.randn(64, 64, device=device), torch.randint(10, (64,), device=device)

    def loss() -> Tensor:
        logits, h = [], x
        for layer, head in zip(layers, heads, strict=True):
            h = layer(h).relu()
            logits.append(head(h))
        if name.endswith("stacked losses"):
            each = F.cross_entropy(torch.cat(logits), y.repeat(exits), reduction="none")
            return balance(each.view(exits, -1).mean(1))
        losses = [F.cross_entropy(z, y) for z in logits]
        return sum(losses) if name == BASE else balance(losses)

    forward = loss if compiler is None else compiler(loss)

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    return step
