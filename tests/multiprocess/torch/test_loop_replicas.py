"""The block of docs/guides on DDP, in two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import torch.multiprocessing as mp
from support.docs.loop_replicas import replica
from support.docs.loop_torch import undivided

from loss_balance.experiments.verification.oracle import Oracle


def test_ddp_without_sync_moves_all_replicas_alike_by_one_all_reduce_a_step(tmp_path):
    mp.start_processes(replica, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    found = [json.loads(Path(tmp_path, f"{rank}.json").read_text()) for rank in range(2)]
    assert [one["steps"] for one in found] == [one["reduced"] for one in found] == [2, 2]
    assert found[0]["seen"] != found[1]["seen"]
    assert found[0]["weight"] == found[1]["weight"]
    assert found[0]["state"] == found[1]["state"]
    oracle = Oracle(2)
    both = [undivided(one["seen"], 4) for one in found]
    for pair in zip(*both, strict=True):
        oracle.update([sum(column) / 2 for column in zip(*pair, strict=True)])
    assert found[0]["state"]["average"] == pytest.approx(oracle.average, rel=1e-5)
    assert found[0]["state"]["step"] == 2
