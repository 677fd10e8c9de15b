"""Replicas: two processes under DDP, each with batches of its own: are their weights equal?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers.findings import Finding, failed, heard, percent
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import batches
from benchmarks.peers.training import Run, apart

TABLE = "What is kept"
COLUMN = "equal weights on two replicas"
STEPS = 20
NEAR = 1e-5  # of the gradient's length: what the order of a sum makes


def gathered(own: Tensor) -> list[Tensor]:
    """Of both replicas."""
    both = [torch.empty_like(own) for _ in range(2)]
    distributed.all_gather(both, own)
    return both


def trained(kind: type[Way], rank: int, *, wrapped: bool) -> tuple[float, float]:
    """(how far the replicas' networks are from each other, how far what their weights make is)."""
    run = Run(kind, around=DistributedDataParallel)
    if wrapped:
        run.way.module = DistributedDataParallel(run.way.module)
    for batch in batches(STEPS, seed=10 + rank):
        run.step(batch)
    networks = apart(*gathered(run.parameters()))
    return networks, apart(*gathered(run.fingerprint()))


def replica(rank: int, find: Callable[[], type[Way]], folder: str) -> None:
    """One of the two processes; the first writes what both found."""
    torch.set_num_threads(1)
    place = f"file://{folder}/meet"
    wait = timedelta(seconds=60)
    distributed.init_process_group("gloo", place, rank=rank, world_size=2, timeout=wait)
    kind = find()
    try:
        text, value = said(*trained(kind, rank, wrapped=False))
        if value > NEAR and wrappable(kind):
            inside, _ = said(*trained(kind, rank, wrapped=True))
            text += f"; in a DDP of its own: {inside}"
        found = Finding(TABLE, "", COLUMN, text, value)
    except Exception as error:  # of any package, of any kind: that is the finding
        found = Finding(TABLE, "", COLUMN, failed(error))
    if rank == 0:
        Path(folder, "found").write_text(found.line())


def wrappable(kind: type[Way]) -> bool:
    """Whether it is a module with parameters whose forward gives the total."""
    way = kind(4, [nn.Parameter(torch.ones(2, 2))])
    return bool(way.parameters()) and not kind.owns_backward


def said(networks: float, weights: float) -> tuple[str, float]:
    """In words, and as a number."""
    if networks > NEAR:
        return f"no: networks {percent(networks)} apart", networks
    return ("yes" if weights <= NEAR else f"no: {percent(weights)} apart"), weights


def probe(find: Callable[[], type[Way]]) -> Iterator[Finding]:
    """One cell; `find` is called in each process and has to be a function that it can import."""
    with tempfile.TemporaryDirectory() as folder:
        arguments: Any = (find, folder)
        try:
            multiprocessing.spawn(replica, arguments, nprocs=2)
            found = heard(Path(folder, "found").read_text())
            assert found is not None
        except Exception as error:  # a process that ended
            found = Finding(TABLE, "", COLUMN, failed(error))
    yield found
