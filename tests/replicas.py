"""One process of a distributed run, in a module of its own that a spawned process can import."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from replica_steps import SCHEME, TWO

from loss_balance.backends.torch import Balancer

WORLD = 2


def tensors(losses):
    return [None if x is None else torch.tensor(x, requires_grad=True) for x in losses]


def replica(rank: int, folder: str, compiled: bool) -> None:
    """Runs all steps, resuming from a checkpoint half way, and writes the weights of each."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD
    )
    balance = Balancer(SCHEME)
    call = torch.compile(balance, fullgraph=True, backend="aot_eager") if compiled else balance
    weights = []
    for k, step in enumerate(TWO):
        if k == len(TWO) // 2:
            torch.save(balance.state_dict(), f"{folder}/{rank}.pt")
            balance = Balancer(SCHEME)
            balance.load_state_dict(torch.load(f"{folder}/{rank}.pt", weights_only=True))
            call = (
                torch.compile(balance, fullgraph=True, backend="aot_eager") if compiled else balance
            )
        losses = tensors(step[rank])
        call(losses).backward()
        for loss, weight in zip(losses, balance.weights.tolist(), strict=True):
            assert loss is None or loss.grad.item() == pytest.approx(weight)
        weights.append(balance.weights.numpy().copy())
    np.savez(f"{folder}/{rank}.npz", np.stack(weights), **balance.export_state())
    dist.destroy_process_group()
