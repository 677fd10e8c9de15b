"""Lightning on two devices: one clock, one state, and one process that logs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from support.distributed.processes import run_together
from support.docs.loop_page import need
from support.docs.loop_torch import undivided

from loss_balance.experiments.verification.oracle import Oracle

PROGRAM = Path(__file__).parents[2] / "support" / "balancers" / "lightning_replica.py"


def test_ddp_moves_all_replicas_alike_once_a_step_and_one_of_them_logs(tmp_path):
    need("lightning")
    (ended,) = run_together(str(PROGRAM), [{"OMP_NUM_THREADS": "1"}], folder=tmp_path, timeout=300)
    assert ended.code == 0, ended.said
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [one["steps"] for one in found] == [3, 3]  # 5 batches each, two to a step
    assert found[0]["seen"] != found[1]["seen"]
    assert found[0]["weight"] == found[1]["weight"]
    assert found[0]["state"] == found[1]["state"]
    oracle = Oracle(2)
    both = [undivided(one["seen"], 2) for one in found]
    for pair in zip(*both, strict=True):
        weights = oracle.update([sum(column) / 2 for column in zip(*pair, strict=True)])
    assert found[0]["state"]["average"] == pytest.approx(oracle.average, rel=1e-5)
    (path,) = tmp_path.glob("logs/**/metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert float(rows[-1]["loss_weight/a"]) == pytest.approx(weights[0], rel=1e-5)
