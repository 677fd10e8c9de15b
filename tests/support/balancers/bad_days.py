"""A training on two ranks that saves now and then, and what may befall one of them.

In a module of its own that a spawned process can import.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support.balancers.engine_cases import Exits, batch, optimiser, whole
from support.balancers.replica_cases import SCHEME, seen
from support.balancers.replicas import WORLD, join
from torch.nn.parallel import DistributedDataParallel

from loss_balance.backends.torch import Balancer

STEPS, EVERY, FATAL = 8, 2, 5  # steps; saved after every so many; when it happens to rank 1
TIMEOUT = 20.0  # seconds, of the group, for meeting too


def begin(folder: Path, mishap: tuple[int, str] | None = None) -> Any:
    """Starts both ranks; `mishap` is a signal that rank 1 sends itself, and before what."""
    rendezvous = folder / "rendezvous"
    rendezvous.unlink(missing_ok=True)  # what a killed rank left
    return mp.start_processes(
        worker, args=(str(folder), mishap), nprocs=WORLD, join=False, start_method="spawn"
    )


def worker(rank: int, folder: str, mishap: tuple[int, str] | None) -> None:
    """Goes on from what was saved, to the end, and writes what it ended with."""
    torch.set_num_threads(1)
    join(rank, folder, WORLD, TIMEOUT)
    plain, balance = Exits(inside=False), Balancer(SCHEME)
    net = DistributedDataParallel(plain)
    optimizer = optimiser(net)
    for step in range(load(folder, plain, optimizer, balance), STEPS):
        befalls = mishap is not None and rank == 1 and step == FATAL
        losses = net(*batch(rank, step))
        if befalls and mishap[1] == "balance":
            os.kill(os.getpid(), mishap[0])
        total = balance(losses)
        if befalls and mishap[1] == "backward":
            os.kill(os.getpid(), mishap[0])
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0 and (step + 1) % EVERY == 0:
            save(folder, plain, optimizer, balance, step + 1)
    found = {"state": seen(balance), "parameters": whole(net), "losses": plain.seen}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def save(folder: str, net: Any, optimizer: Any, balance: Balancer, step: int) -> None:
    """Writes one file, whole or not at all."""
    parts = {"net": net, "optimizer": optimizer, "balance": balance}
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save(state | {"step": step}, f"{folder}/new.pt")
    os.replace(f"{folder}/new.pt", f"{folder}/saved.pt")


def load(folder: str, net: Any, optimizer: Any, balance: Balancer) -> int:
    """Takes what was saved, on every rank; how many steps that were."""
    path = Path(folder, "saved.pt")
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in {"net": net, "optimizer": optimizer, "balance": balance}.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def ended(context: Any, seconds: float = 120.0) -> list[int | None]:
    """The exit codes, rank 1 killed where rank 0 has ended and it has not; no process is left."""
    first, second = context.processes
    first.join(seconds)
    codes = [first.exitcode]
    if first.exitcode != 0 and second.is_alive():
        os.kill(second.pid, signal.SIGKILL)  # a stopped one takes no other signal
    second.join(seconds)
    for process in (first, second):
        process.kill()
        process.join()
    return [*codes, second.exitcode]


def final(folder: Path) -> list[dict[str, Any]]:
    """What both ranks ended with."""
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(WORLD)]
