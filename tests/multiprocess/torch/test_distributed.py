"""Two processes, different losses, one state."""

from __future__ import annotations

import numpy as np
import pytest
from support.balancers.replica_steps import SCHEME, SKIPPED, TWO, expected_weights

torch = pytest.importorskip("torch")
import torch.distributed as dist
import torch.multiprocessing as mp
from support.balancers.replicas import WORLD, replica

from loss_balance.backends.torch import Balancer


@pytest.mark.parametrize("compiled", [False, True])
def test_replicas_hold_identical_weights_while_their_losses_differ(tmp_path, compiled):
    mp.start_processes(replica, args=(str(tmp_path), compiled), nprocs=WORLD, start_method="spawn")
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(WORLD))
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(first["arr_0"], expected_weights(TWO), rtol=1e-6)
    assert first["skipped"].tolist() == SKIPPED


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
