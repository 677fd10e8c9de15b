"""An ensemble whose members answer in the processes of a Dask cluster."""

from __future__ import annotations

import pytest

distributed = pytest.importorskip("distributed")

from support.networks import anytime_tools as tools

from loss_balance.eann import Member, run


def test_dask_carries_an_ensemble():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as pool,
    ):
        members = [Member(tools.doubled, [0.5, 0.4]), Member(tools.breaking, [0.3, 0.2])]
        got = run(members, 10, executor=pool)
        assert (got.value, got.member, got.exit) == (10, 1, 0)
        assert isinstance(got.failure, ArithmeticError)
        errors = [1 / n for n in range(3, 9999)]
        members = [Member(tools.tripled, [0.5]), Member(tools.endless, errors)]
        got = run(members, 7, 2.0, pool)
        assert (got.member, got.stopped, got.late) == (1, "deadline", False)
