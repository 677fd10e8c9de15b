"""Ways to combine losses in PyTorch: ours, what others publish, and no balance at all.

TorchJD is called as its users call it, if it is installed (`pip install torchjd`). Of LibMTL and
AutomaticWeightedLoss it is the expression that counts, written anew: both are tied to trainers or
to one module, and their cost is that of these few operators. Without the optimiser's step over the
parameters that uncertainty weighting learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.timing import BASE
from loss_balance import AdaLoss, Constant
from loss_balance.backends.torch import Balancer


class Way(NamedTuple):
    """Makes one scalar of the losses."""

    combine: Callable[..., Tensor]
    stacked: bool = False  # takes them as a vector


def ours(count: int, device: str) -> dict[str, Way]:
    """The balancer, beside plain sums."""
    return {
        BASE: Way(sum),
        "torch.stack(losses).sum()": Way(lambda losses: torch.stack(losses).sum()),
        "Balancer(AdaLoss)": Way(Balancer(AdaLoss(count)).to(device)),
        "Balancer(AdaLoss), stacked losses": Way(Balancer(AdaLoss(count)).to(device), True),
        "Balancer(Constant)": Way(Balancer(Constant(count)).to(device)),
    }


def expressions(count: int, device: str) -> dict[str, Way]:
    """What LibMTL and AutomaticWeightedLoss compute of the losses alone."""
    logarithms = torch.full((count,), -0.5, device=device, requires_grad=True)
    deviations = torch.ones(count, device=device, requires_grad=True)
    before = torch.rand(2, count, device=device).add_(0.5)

    def libmtl_uw(losses: list[Tensor]) -> Tensor:
        return (torch.stack(losses) / (2 * logarithms.exp()) + logarithms / 2).sum()

    def libmtl_gls(losses: list[Tensor]) -> Tensor:
        return torch.pow(torch.stack(losses).prod(), 1.0 / count)

    def libmtl_dwa(losses: list[Tensor]) -> Tensor:
        weights = count * torch.softmax(before[0] / before[1] / 2.0, dim=0)
        return (torch.stack(losses) * weights).sum()

    def automatic(losses: list[Tensor]) -> Tensor:
        total: Tensor = sum(
            0.5 / deviations[i] ** 2 * loss + torch.log(1 + deviations[i] ** 2)
            for i, loss in enumerate(losses)
        )  # type: ignore[assignment]  # never the 0 of no losses
        return total

    return {
        "LibMTL UW": Way(libmtl_uw),
        "LibMTL GLS": Way(libmtl_gls),
        "LibMTL DWA": Way(libmtl_dwa),
        "AutomaticWeightedLoss": Way(automatic),
    }


def torchjd(count: int, device: str) -> Iterator[tuple[str, Way]]:
    """TorchJD's schemes that need the losses alone; none where it is not installed."""
    try:
        from torchjd import scalarization
    except ImportError:
        return
    for name, arguments in (("DWA", ()), ("UW", (count,)), ("GeometricMean", ())):
        if hasattr(scalarization, name):
            peer = getattr(scalarization, name)(*arguments)
            peer = peer.to(device) if isinstance(peer, nn.Module) else peer
            yield f"TorchJD {name}", Way(lambda losses, peer=peer: peer(torch.stack(losses)))
