"""Two processes, different losses, one state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import Oracle

from loss_balance import AdaLoss

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402

from loss_balance.backends.torch import Balancer  # noqa: E402

WORLD = 2
SCHEME = AdaLoss(3, decay=0.5)
STEPS = [  # per step, per replica; None is absent
    [[4.0, 1.0, 0.5], [2.0, 3.0, 0.25]],
    [[1.0, None, 2.0], [3.0, 5.0, 2.0]],
    [[1.0, math.nan, 2.0], [3.0, 5.0, 4.0]],
    [[1.0, None, 2.0], [3.0, None, 4.0]],
    [[1.0, 2.0, 2.0], [math.inf, 0.5, 4.0]],
]


def mean_over_replicas(step):
    """What one process with the whole batch would see."""
    merged = []
    for values in zip(*step, strict=True):
        there = [x for x in values if x is not None]
        merged.append(sum(there) / len(there) if there else None)
    return merged


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
    for k, step in enumerate(STEPS):
        if k == len(STEPS) // 2:
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


@pytest.mark.parametrize("compiled", [False, True])
def test_replicas_hold_identical_weights_while_their_losses_differ(tmp_path, compiled):
    mp.start_processes(replica, args=(str(tmp_path), compiled), nprocs=WORLD, start_method="spawn")
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(WORLD))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])
    oracle = Oracle(3, decay=0.5)
    expected = [oracle.update(mean_over_replicas(step)) for step in STEPS]
    np.testing.assert_allclose(first["arr_0"], expected, rtol=1e-6)
    assert first["skipped"].tolist() == oracle.skipped == [1, 1, 0]


def test_without_sync_a_replica_keeps_to_itself(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        for balance in (Balancer(SCHEME), Balancer(SCHEME, sync=False)):
            balance(torch.tensor([4.0, 1.0, 0.5]))
            assert balance.average.tolist() == [4.0, 1.0, 0.5]
    finally:
        dist.destroy_process_group()
