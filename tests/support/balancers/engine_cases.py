"""One small training under every engine of PyTorch, on two ranks: what each of them ends with.

In a module of its own that a spawned process can import; what should come is in
`test_engines.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from support.balancers.replica_cases import SCHEME, refused, seen
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.nn.parallel import DistributedDataParallel

from loss_balance.backends.torch import Balancer

STEPS = 4
FULL = StateDictOptions(full_state_dict=True)


class Exits(nn.Module):
    """Two exits whose losses differ in scale; the balancer inside, or the losses come out."""

    def __init__(self, *, inside: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(3, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        self.balance = Balancer(SCHEME) if inside else None
        self.seen: list[list[float]] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = torch.tanh(self.trunk(x))
        first, second = (((head(h) - y) ** 2).mean() for head in self.heads)
        losses = torch.stack([10.0 * first, second])
        self.seen.append(losses.detach().tolist())
        return losses if self.balance is None else self.balance(losses)


def batch(rank: int, step: int) -> tuple[Tensor, Tensor]:
    """Of four rows on one rank, of two on the other."""
    rows = torch.Generator().manual_seed(2 * step + rank)
    n = 2 if rank else 4
    return torch.randn(n, 3, generator=rows), torch.randn(n, 1, generator=rows)


def optimiser(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def trained(
    rank: int, wrap: Callable[[nn.Module], nn.Module], *, inside: bool = True
) -> dict[str, Any]:
    """After `STEPS` steps: this rank's losses, the weights of each step, state and parameters."""
    plain = Exits(inside=inside)
    net = wrap(plain)
    balance = plain.balance if inside else Balancer(SCHEME)
    assert balance is not None
    optimizer, weights = optimiser(net), []
    for step in range(STEPS):
        found = net(*batch(rank, step))
        total = found if inside else balance(found)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        weights.append(balance.weights.tolist())
    return {
        "losses": plain.seen,
        "weights": weights,
        "state": seen(balance),
        "dtype": str(balance.average.dtype),
        "parameters": whole(net),
    }


def whole(net: nn.Module) -> dict[str, Any]:
    """The parameters in full, however they are sharded."""
    found = get_model_state_dict(net, options=FULL)
    return {name: value.tolist() for name, value in found.items() if "balance" not in name}


def sharded(net: Any, policy: Any = None) -> nn.Module:
    """FSDP2, the heads in groups of their own."""
    options = {} if policy is None else {"mp_policy": policy}
    mesh = init_device_mesh("cpu", (2,))
    for head in net.heads:
        fully_shard(head, mesh=mesh, **options)
    fully_shard(net, mesh=mesh, **options)
    return net


def from_meta(net: nn.Module) -> nn.Module:
    """FSDP2 of a network without values, which come from a state dict in full."""
    full = {name: value.clone() for name, value in net.state_dict().items()}
    net.to("meta")
    sharded(net)
    net.to_empty(device="cpu")
    set_model_state_dict(net, full, options=FULL)
    return net


def spared(net: Any) -> nn.Module:
    """FSDP1 that has all buffers in bfloat16 but those of the balancer."""
    return FSDP1(net, mixed_precision=NARROW, ignored_modules=[net.balance])


def narrowed(rank: int) -> Any:
    """FSDP1 that has all buffers in bfloat16, the balancer's too."""
    net = Exits()
    before = seen(net.balance)
    message = refused(lambda: FSDP1(net, mixed_precision=NARROW)(*batch(rank, 0)))
    return {"message": message, "same": seen(net.balance) == before}


def checkpointed_by_two(rank: int) -> Any:
    """Saves what two sharded ranks hold after some steps."""
    net = sharded(Exits())
    optimizer = go_on(net, rank, steps=2)
    model, momenta = get_state_dict(net, optimizer)
    dcp.save({"model": model, "optimizer": momenta}, checkpoint_id="two")
    return {"state": seen(net.balance), "parameters": whole(net)}


def go_on(net: nn.Module, rank: int, steps: int, optimizer: Any = None) -> Any:
    """Trains by some steps and returns the optimiser."""
    optimizer = optimiser(net) if optimizer is None else optimizer
    for step in range(steps):
        net(*batch(rank, step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def restored(net: nn.Module, checkpoint: Any) -> Any:
    """Loads a distributed checkpoint into the network, and into the optimiser that it returns."""
    optimizer = optimiser(net)
    model, momenta = get_state_dict(net, optimizer)
    state = {"model": model, "optimizer": momenta}
    dcp.load(state, checkpoint_id=checkpoint)
    set_state_dict(
        net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    return optimizer


def loaded_by_two(rank: int) -> Any:
    """Loads what one process saved, into two shards made of other values."""
    net = Exits()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    sharded(net)
    optimizer = restored(net, "one")
    loaded = {"state": seen(net.balance), "parameters": whole(net)}
    go_on(net, rank, 1, optimizer)
    return loaded | {"after": seen(net.balance)}


CPU = torch.device("cpu")  # FSDP1 would ask for an accelerator
FSDP1 = partial(FullyShardedDataParallel, use_orig_params=True, device_id=CPU)
NARROW = MixedPrecision(buffer_dtype=torch.bfloat16)
HALF = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
CASES: dict[str, Callable[[int], Any]] = {
    f"ddp, {place}, {buffers}, {graph}": partial(
        trained,
        wrap=partial(
            DistributedDataParallel,
            broadcast_buffers=buffers == "broadcast",
            static_graph=graph == "static",
        ),
        inside=place == "inside",
    )
    for place in ("inside", "outside")
    for buffers in ("broadcast", "own")
    for graph in ("static", "dynamic")
}
CASES |= {
    "fsdp1, inside": partial(trained, wrap=FSDP1),
    "fsdp1, outside": partial(trained, wrap=FSDP1, inside=False),
    "fsdp2, inside": partial(trained, wrap=sharded),
    "fsdp2, outside": partial(trained, wrap=sharded, inside=False),
    "fsdp2, from meta": partial(trained, wrap=from_meta),
    "fsdp1, narrow buffers": partial(trained, wrap=spared),
    "fsdp2, narrow": partial(trained, wrap=partial(sharded, policy=HALF)),
    "narrowed": narrowed,
    "checkpointed by two": checkpointed_by_two,
}
