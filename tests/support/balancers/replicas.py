"""One process of a distributed run, in a module of its own that a spawned process can import."""

from __future__ import annotations

import importlib
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support.balancers.replica_steps import SCHEME, TWO

from loss_balance.backends.torch import Balancer

WORLD = 2


def tensors(losses):
    return [None if x is None else torch.tensor(x, requires_grad=True) for x in losses]


def replica(rank: int, folder: str, compiled: bool) -> None:
    """Runs all steps, resuming from a checkpoint half way, and writes the weights of each."""
    join(rank, folder, WORLD, seconds=60.0)  # one may compile while the other waits
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


def run_cases(rank: int, folder: str, module: str, world: int = WORLD) -> None:
    """Runs the module's `CASES` one after the other and writes what each returned, or the error."""
    torch.set_num_threads(1)
    os.chdir(folder)  # what cases write for each other
    join(rank, folder, world)
    found = {}
    for name, case in importlib.import_module(module).CASES.items():
        try:
            found[name] = case(rank)
        except Exception as error:  # shown by the test of that case
            found[name] = f"{type(error).__name__}: {error}"
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def join(rank: int, folder: str, world: int, seconds: float = 20.0) -> None:
    """Meets the other ranks; what would then wait for ever fails."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=seconds),
    )


def outcomes(module: str, folder: Path, world: int = WORLD) -> dict[str, list[Any]]:
    """What every case of the module returned on each rank, by its name."""
    arguments = (str(folder), module, world)
    mp.start_processes(run_cases, args=arguments, nprocs=world, start_method="spawn")
    ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    return {name: [rank[name] for rank in ranks] for name in ranks[0]}
