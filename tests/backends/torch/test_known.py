"""The short update, where every loss has been seen: when it is taken, and equal results."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from loss_balance import AdaLoss, LinearSchedule, LogLoss

torch = pytest.importorskip("torch")
from support.balancers.dispatches import Dispatches

from loss_balance.backends.torch import Balancer

ROWS = [[3.0, 2.0, 1.0], [2.5, float("nan"), 1.5], [1e-9, 1.0, float("inf")], [2.0, 0.0, 0.5]]


def kernels(balance, losses, **options):
    """How many operators one call takes."""
    with Dispatches() as seen:
        balance(losses, **options)
    return len(seen.kernels)


def balancer(*, settled=True):
    """One that has seen one row, or none."""
    balance = Balancer(3)
    if settled:
        balance(torch.tensor(ROWS[0]))
    return balance


SHORT = kernels(balancer(), torch.tensor(ROWS[0]))
LONG = kernels(balancer(settled=False), torch.tensor(ROWS[0]))


def test_it_is_short():
    assert SHORT < LONG - 4


@pytest.mark.parametrize(
    "scheme",
    [
        AdaLoss(3),
        AdaLoss(3, gamma=0.0, final_weight=2.0, clip=2.0, warmup=3, update_every=2),
        AdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 3), decay=0.3),
        LogLoss(3),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_gives_the_long_one_to_the_last_bit(scheme, dtype):
    short, long = (Balancer(scheme, dtype=dtype) for _ in range(2))
    for row in ROWS * 3:
        losses = torch.tensor(row, dtype=dtype)
        long.known = type(long.known)()  # knows nothing
        assert torch.equal(short(losses), long(losses)) or not np.isfinite(row).all()
        assert short.known.holds(short.average)
        for name, value in short.state_dict().items():
            assert torch.equal(value, long.state_dict()[name]), name


def writes():
    """What puts a loss back to never seen, by name."""
    fresh = Balancer(3)
    return {
        "reset": lambda b: b.reset(),
        "reset one": lambda b: b.reset(0),
        "load_state_dict": lambda b: b.load_state_dict(fresh.state_dict()),
        "load_state_dict, assign": lambda b: b.load_state_dict(fresh.state_dict(), assign=True),
        "import_state": lambda b: b.import_state(fresh.export_state()),
        "fill_": lambda b: b.average.fill_(-1.0),
        "setattr": lambda b: setattr(b, "average", torch.full((3,), -1.0)),
        "foreach": lambda b: torch._foreach_copy_(list(b.buffers()), list(fresh.buffers())),
        "to_empty": lambda b: b.to_empty(device="cpu"),
    }


@pytest.mark.parametrize("name", writes())
def test_whoever_writes_to_the_state_ends_it(name):
    balance, losses = balancer(), torch.tensor([1.0, 2.0, 4.0])
    writes()[name](balance)
    assert not balance.known.holds(balance.average)
    expected = Balancer(3)
    expected.import_state(balance.export_state())
    assert torch.equal(balance(losses), expected(losses))


def test_a_loss_that_begins_late_has_the_long_one_until_somebody_looks():
    balance = balancer(settled=False)
    balance([torch.tensor(1.0), torch.tensor(2.0), None])
    assert kernels(balance, torch.tensor(ROWS[0])) == LONG
    assert kernels(balance, torch.tensor(ROWS[0])) == LONG
    balance.metrics()
    assert kernels(balance, torch.tensor(ROWS[0])) == SHORT


def test_an_absent_loss_has_the_long_one_and_then_it_is_short_again():
    balance, losses = balancer(), torch.tensor(ROWS[0])
    mask = torch.tensor([True, False, True])
    assert kernels(balance, losses, mask=mask) > LONG
    assert kernels(balance, losses) == SHORT


def test_a_copy_knows_nothing_and_learns_it():
    balance = copy.deepcopy(balancer())
    assert kernels(balance, torch.tensor(ROWS[0])) == LONG
    balance.export_state()
    assert kernels(balance, torch.tensor(ROWS[0])) == SHORT
