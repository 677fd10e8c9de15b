"""What two processes go through together, one function a case: each returns what it saw.

In a module of its own that a spawned process can import. `rank` is 0 or 1; losses are those of
`unequal` unless the case is about others. What should come is in `test_replicas.py`.
"""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from loss_balance import AdaLoss
from loss_balance.backends.torch import Balancer

SCHEME = AdaLoss(2, decay=0.5)


def unequal(rank: int, step: int = 0) -> list[torch.Tensor]:
    """Losses of one rank in one step; their means are (3 + step, 1)."""
    return [torch.tensor(2.0 + 2.0 * rank + step), torch.tensor(1.0)]


def seen(balance: Balancer) -> dict[str, Any]:
    """The state in plain Python."""
    exported = balance.export_state()
    return {name: array.tolist() for name, array in exported.items() if name != "identity"}


def refused(call: Any) -> str:
    """The message of the ValueError that came."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return "no error"


class Model(nn.Module):
    """A network with batch statistics, two losses and the balancer within."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.balance = Balancer(SCHEME, **options)

    def forward(self, x: torch.Tensor, losses: list[Any]) -> torch.Tensor:
        near_zero = 0.0 * self.net(x).sum()
        return self.balance([None if loss is None else loss + near_zero for loss in losses])


class Chain(nn.Module):
    """Two exits, whose heads multiply, and the balancer's forks."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Parameter(torch.ones(2))
        self.balance = Balancer(SCHEME, equilibrium=True)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first, onward = self.balance.fork(self.trunk[0] * x, 0)
        second, _ = self.balance.fork(self.trunk[1] * onward, 1)
        return [first, 3.0 * second]


def forked_under_ddp(rank: int) -> Any:
    """Gradients of the second step, by weights that all ranks share."""
    net = DistributedDataParallel(Chain())
    balance = net.module.balance
    for _ in range(2):
        net.zero_grad()
        losses = net(torch.tensor(1.0 + rank))
        balance(losses).backward()
    return seen(balance) | {"gradient": net.module.trunk.grad.tolist()}


def none_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    total = balance(unequal(1) if rank else [None, None])
    if not rank:
        total.backward()  # as the other rank does with a loss of its network
    return seen(balance) | {"total": total.item()}


def none_on_all_ranks(rank: int) -> Any:
    balance = Balancer(SCHEME)
    totals = [balance(losses).item() for losses in (unequal(rank), [None, None], unequal(rank))]
    return seen(balance) | {"totals": totals}


def empty_mask_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    balance(torch.stack(unequal(rank)), mask=torch.tensor([bool(rank)] * 2))
    return seen(balance)


def negative_at_first_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    before = seen(balance)
    message = refused(lambda: balance([torch.tensor(-1.0 if rank else 1.0), torch.tensor(1.0)]))
    same = seen(balance) == before
    balance(unequal(rank))
    return seen(balance) | {"message": message, "same": same}


def negative_later_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    balance(unequal(rank))
    balance([torch.tensor(-1.0 if rank else 1.0), torch.tensor(1.0)])
    return seen(balance)


def nan_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    balance(unequal(rank))
    balance([torch.tensor(float("nan") if rank else 1.0), torch.tensor(1.0)])
    return seen(balance)


def evaluated_on_one_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    if rank:
        balance.eval()([torch.tensor(-1.0), torch.tensor(1.0)])
    balance.train()(unequal(rank))
    if not rank:
        balance.eval()(unequal(rank))
    balance.train()(unequal(rank))
    return seen(balance)


def loaded_on_one_rank(rank: int) -> Any:
    """Before the first step and in the middle; step counts that float32 would round."""
    checkpoint = Balancer(SCHEME)
    checkpoint(unequal(0))
    found = []
    for moment in range(2):
        balance = Balancer(SCHEME)
        for step in range(moment):
            balance(unequal(rank, step))
        if rank == 0:
            state = checkpoint.export_state()
            state["step"] = state["step"] * 0 + 2**24 + 1
            balance.import_state(state)
        balance(unequal(rank))
        found.append(seen(balance))
    return found


def reset_on_one_rank_and_negative(rank: int) -> Any:
    balance = Balancer(SCHEME)
    balance(unequal(rank))
    if rank == 0:
        balance.reset()
    balance([torch.tensor(-1.0 if rank else 1.0), torch.tensor(1.0)])
    balance(unequal(rank))
    return seen(balance)


def impossible_on_the_first_rank(rank: int) -> Any:
    balance = Balancer(SCHEME)
    if rank == 0:
        balance.average.fill_(float("nan"))
    return refused(lambda: balance(unequal(rank)))


def accumulated(rank: int, *, no_sync: bool, absent: bool = False) -> Any:
    """Three steps of the optimiser, of two micro-batches each."""
    ddp = DistributedDataParallel(Model(accumulate=2))
    reduced = []
    with mock.patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as calls:
        for step in range(3):
            for micro in range(2):
                losses: list[Any] = unequal(rank, step)
                losses[0] = losses[0] + (1.0 if micro else -1.0)
                if absent:
                    here = rank or micro
                    losses[1] = torch.tensor(1.0 + 2.0 * micro + 4.0 * rank) if here else None
                waits = ddp.no_sync() if no_sync and not micro else nullcontext()
                with waits:
                    ddp(torch.ones(4, 3), losses).backward()
            reduced.append(calls.call_count)
    return seen(ddp.module.balance) | {"reduced": reduced}


def accumulated_with_no_sync(rank: int) -> Any:
    return accumulated(rank, no_sync=True)


def accumulated_while_ddp_broadcasts_buffers(rank: int) -> Any:
    return accumulated(rank, no_sync=False)


def accumulated_with_unequal_presence(rank: int) -> Any:
    return accumulated(rank, no_sync=True, absent=True)


def compiled_and_accumulated(rank: int) -> Any:
    balance = Balancer(SCHEME, accumulate=2)
    call = torch.compile(balance, fullgraph=True, backend="aot_eager")
    for step in range(3):
        for micro in range(2):
            losses = unequal(rank, step)
            losses[0] = losses[0] + (1.0 if micro else -1.0)
            call(torch.stack(losses))
    return seen(balance)


def outside_its_group(rank: int) -> Any:
    group = dist.new_group([1])
    if rank == 0:
        return refused(lambda: Balancer(SCHEME, process_group=group))
    balance = Balancer(SCHEME, process_group=group)
    balance(unequal(rank))
    return seen(balance)


def meshes(rank: int) -> Any:
    balance = Balancer(SCHEME, process_group=init_device_mesh("cpu", (2,)))
    balance(unequal(rank))
    flat = init_device_mesh("cpu", (1, 2), mesh_dim_names=("model", "data"))
    part = Balancer(SCHEME, process_group=flat["data"])
    part(unequal(rank))
    single = Balancer(SCHEME, process_group=flat["model"])  # no other rank in it
    single(unequal(rank))
    message = refused(lambda: Balancer(SCHEME, process_group=flat))
    return {"whole": seen(balance), "part": seen(part), "single": seen(single), "message": message}


def copies_with_a_group(rank: int) -> Any:
    """Of a group of all, and of a part of them."""
    balance = Balancer(SCHEME, process_group=dist.new_group([0, 1]))
    model = nn.ModuleList([balance, nn.Linear(1, 1)])
    found = {}
    for name, other in {
        "deepcopy": copy.deepcopy(balance),
        "averaged": AveragedModel(model).module[0],
        "pickle": pickle.loads(pickle.dumps(balance)),
    }.items():
        other(unequal(rank))
        found[name] = seen(other)
    single = dist.new_group([rank], use_local_synchronization=True)
    lost = pickle.loads(pickle.dumps(Balancer(SCHEME, process_group=single)))
    message = refused(lambda: lost(unequal(rank)))
    lost.process_group = single
    lost(unequal(rank))
    return found | {"message": message, "set": seen(lost)}


def joined(rank: int, *, form: str, longer: int) -> Any:
    """Uneven inputs: the `longer` rank has five batches, the other three."""
    model = Model()
    balance = model.balance if form == "within" else Balancer(SCHEME)
    ddp = DistributedDataParallel(model if form == "within" else model.net)
    x = torch.ones(4, 3)
    for _ in range(2):  # two epochs
        with Join([balance] if form == "alone" else [balance, ddp]):
            for step in range(5 if rank == longer else 3):
                Join.notify_join_context(balance)
                losses = unequal(rank, step)
                if form == "within":
                    ddp(x, losses).backward()
                elif form == "beside":
                    near_zero = 0.0 * ddp(x).sum()
                    balance([loss + near_zero for loss in losses]).backward()
                else:
                    balance(losses)
    return seen(balance)


def joined_within_ddp(rank: int) -> Any:
    return [joined(rank, form="within", longer=longer) for longer in range(2)]


def joined_beside_ddp(rank: int) -> Any:
    return [joined(rank, form="beside", longer=longer) for longer in range(2)]


def joined_alone(rank: int) -> Any:
    return [joined(rank, form="alone", longer=longer) for longer in range(2)]


def sharded_from_meta(rank: int) -> Any:
    for size in (1, 2, 4, 64, 1024):
        torch.full((size,), -6e15)  # what lies in memory
    with torch.device("meta"):
        model = Model()
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    fresh = seen(model.balance)
    model(torch.ones(4, 3), unequal(rank)).backward()
    return {"fresh": fresh, "after": seen(model.balance)}


CASES = {
    case.__name__: case
    for case in (
        forked_under_ddp,
        none_on_one_rank,
        none_on_all_ranks,
        empty_mask_on_one_rank,
        negative_at_first_on_one_rank,
        negative_later_on_one_rank,
        nan_on_one_rank,
        evaluated_on_one_rank,
        loaded_on_one_rank,
        reset_on_one_rank_and_negative,
        impossible_on_the_first_rank,
        accumulated_with_no_sync,
        accumulated_while_ddp_broadcasts_buffers,
        accumulated_with_unequal_presence,
        compiled_and_accumulated,
        outside_its_group,
        meshes,
        copies_with_a_group,
        joined_within_ddp,
        joined_beside_ddp,
        joined_alone,
        sharded_from_meta,
    )
}
