"""The page's block on DDP as one process of two runs it, for a spawned process to import."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from support.balancers.replicas import join
from support.docs.loop_page import go_on
from support.docs.loop_torch import recorded, standing, steps_of


def replica(rank: int, folder: str) -> None:
    """Runs the block on data of this rank's own and writes what happened."""
    torch.set_num_threads(1)
    join(rank, folder, world=2, seconds=60.0)
    page = standing(seed=rank)
    page.optimizer = torch.optim.SGD(page.net.parameters(), lr=0.01)
    steps, seen = steps_of(page.optimizer), recorded(page)
    with mock.patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as reduced:
        go_on(page, "torch", "ddp")
    state = page.balance.export_state()
    found = {
        "steps": len(steps),
        "reduced": reduced.call_count,
        "seen": seen,
        "weight": page.net.weight.tolist(),
        "state": {name: state[name].tolist() for name in ("average", "weights", "step", "pending")},
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
