"""DDP, FSDP1, FSDP2 and distributed checkpoints: every rank the same weights, those of the mean."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import torch.distributed.checkpoint as dcp
from support.balancers.engine_cases import (
    CASES,
    STEPS,
    Exits,
    batch,
    go_on,
    optimiser,
    restored,
    whole,
)
from support.balancers.replica_cases import seen
from support.balancers.replicas import WORLD, outcomes
from torch.distributed.checkpoint.state_dict import get_state_dict

from loss_balance.experiments.verification.oracle import Oracle

NARROW = "fsdp2, narrow"  # the network's own arithmetic in bfloat16
ENGINES = [name for name in CASES if name.startswith(("ddp", "fsdp"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def found(folder):
    """What every case returned on either rank, by its name."""
    return outcomes("support.balancers.engine_cases", folder)


@pytest.fixture(scope="module")
def alone():
    """(the parameters after the same steps in one process, its weights by the oracle)."""
    net, oracle, weights = Exits(inside=False), Oracle(2, decay=0.5), []
    optimizer = optimiser(net)
    for step in range(STEPS):
        mean = sum(net(*batch(rank, step)) for rank in range(WORLD)) / WORLD
        weights.append(oracle.update(mean.tolist()))
        (torch.tensor(weights[-1]) @ mean).backward()
        optimizer.step()
        optimizer.zero_grad()
    return whole(net), weights


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_hold_the_same_bits_while_their_losses_differ(found, engine):
    first, second = found[engine]
    assert first["losses"] != second["losses"]
    for name in ("weights", "state", "parameters"):
        assert first[name] == second[name]
    assert first["dtype"] == "torch.float32"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_state_is_that_of_the_mean_losses_whatever_the_engine(found, engine):
    oracle = Oracle(2, decay=0.5)
    both = zip(*(rank["losses"] for rank in found[engine]), strict=True)
    weights = [
        oracle.update([sum(pair) / WORLD for pair in zip(*one, strict=True)]) for one in both
    ]
    for rank in found[engine]:
        assert rank["state"]["average"] == pytest.approx(oracle.average, rel=1e-6)
        assert rank["state"]["step"] == STEPS
        for step, expected in zip(rank["weights"], weights, strict=True):
            assert step == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != NARROW])
def test_many_ranks_train_the_network_that_one_process_would(found, alone, engine):
    parameters, weights = alone
    for rank in found[engine]:
        assert rank["weights"] == [pytest.approx(step, rel=1e-5) for step in weights]
        assert rank["parameters"].keys() == parameters.keys()
        for name, value in rank["parameters"].items():
            torch.testing.assert_close(
                torch.tensor(value), torch.tensor(parameters[name]), rtol=1e-4, atol=1e-6
            )


def test_an_engine_that_narrows_the_state_is_found_and_told_how_not_to(found):
    for rank in found["narrowed"]:
        assert "the state must stay in torch.float32, got torch.bfloat16" in rank["message"]
        assert "ignored_modules=[balance]" in rank["message"]
        assert rank["same"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")  # of saving from one process
def test_a_distributed_checkpoint_goes_from_two_ranks_to_one_and_back(found, folder):
    net = Exits()
    optimizer = restored(net, folder / "two")
    for rank in found["checkpointed by two"]:
        assert {"state": seen(net.balance), "parameters": whole(net)} == rank
    go_on(net, 0, 1, optimizer)
    model, momenta = get_state_dict(net, optimizer)
    dcp.save({"model": model, "optimizer": momenta}, checkpoint_id=folder / "one")
    (folder / "rendezvous").unlink()  # of the first two
    first, second = outcomes("support.balancers.engine_again_cases", folder)["loaded by two"]
    assert first == second
    assert first["state"] == seen(net.balance)
    assert first["parameters"] == whole(net)
    assert first["after"]["step"] == first["state"]["step"] + 1 == 4
