from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from support.balancers.contract import STEPS

from loss_balance import AdaLoss, Constant, LinearSchedule

torch = pytest.importorskip("torch")
from support.balancers.torch_contract import TorchContract, convert

from loss_balance.backends.torch import Balancer


class TestTorch(TorchContract):
    pass


@pytest.fixture
def trained():
    balance = Balancer(3)
    for losses in STEPS:
        balance(convert(losses, "float32"))
    return balance


def assert_same(left, right):
    for name, value in left.state_dict().items():
        other = right.state_dict()[name]
        assert other.dtype == value.dtype
        torch.testing.assert_close(other, value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to("cpu", torch.float16),
        lambda m: m.double(),
        lambda m: torch.nn.Sequential(torch.nn.Linear(2, 2), m).half()[1],
    ],
)
def test_the_state_keeps_its_dtype_and_every_digit(trained, change):
    before = copy.deepcopy(trained)
    assert_same(change(trained), before)
    assert trained(convert(STEPS[0], "float16")).dtype == torch.float16


def test_the_state_moves_with_its_model(trained):
    assert {b.device.type for b in trained.to("meta").buffers()} == {"meta"}
    assert trained.average.dtype == torch.float32


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_a_copy_has_the_same_state_of_its_own(trained, copy_of):
    other = copy_of(trained)
    assert_same(other, trained)
    other(convert(STEPS[0], "float32"))
    assert int(other.step) == int(trained.step) + 1


def test_the_state_is_part_of_the_models_state_dict():
    model = torch.nn.ModuleDict({"net": torch.nn.Linear(2, 2), "balance": Balancer(2)})
    assert {"balance.average", "balance.weights", "balance.step", "balance.skipped"} <= set(
        model.state_dict()
    )
    assert sum(p.numel() for p in model["balance"].parameters()) == 0


def test_two_forwards_before_one_backward(trained):
    first = convert(STEPS[0], "float32", requires_grad=True)
    second = convert(STEPS[1], "float32", requires_grad=True)
    total = trained(first)
    weights = trained.weights.clone()
    (total + trained(second)).backward()
    torch.testing.assert_close(torch.stack([x.grad for x in first]), weights)


def test_a_total_of_evaluation_can_be_differentiated_after_a_training_step(trained):
    losses = convert(STEPS[0], "float32", requires_grad=True)
    weights = trained.weights.clone()
    total = trained.eval()(losses)
    trained.train()(convert(STEPS[1], "float32"))
    total.backward()
    torch.testing.assert_close(torch.stack([x.grad for x in losses]), weights)


@pytest.mark.parametrize("scheme", [Constant(3), AdaLoss(3)])
def test_gradients_accumulate_over_steps_of_any_scheme(scheme):
    balance = Balancer(scheme)
    x = torch.ones((), requires_grad=True)
    totals = [balance([x, 2 * x, 3 * x]) for _ in range(3)]
    sum(totals).backward()
    assert x.grad.isfinite()


def test_a_masked_nan_leaves_no_trace_in_the_gradient():
    losses = torch.tensor([1.0, float("nan"), 2.0], requires_grad=True)
    balance = Balancer(3)
    balance(losses, mask=torch.tensor([True, False, True])).backward()
    torch.testing.assert_close(losses.grad, balance.weights * torch.tensor([1.0, 0.0, 1.0]))


def test_a_gradscaler_sees_the_nan_and_the_state_does_not(trained):
    x = torch.ones((), requires_grad=True)
    trained([x, x * float("nan"), x]).backward()
    assert x.grad.isnan()
    assert trained.weights.isfinite().all()


def test_autocast_does_not_narrow_the_total():
    with torch.autocast("cpu", torch.bfloat16):
        assert Balancer(2)(convert([1.0, 2.0], "float32")).dtype == torch.float32


def test_losses_of_mixed_dtype_are_promoted():
    losses = [torch.tensor(1.0), torch.tensor(2.0, dtype=torch.bfloat16)]
    assert Balancer(2)(losses).dtype == torch.float32


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([torch.tensor(1.0), "2"], "each loss must be a tensor or number, loss 1 is a str"),
        (np.ones(2), "losses must be tensors .*, got a ndarray"),
        (torch.tensor([1, 2]), "losses must be real floating point, got torch.int64"),
    ],
)
def test_what_is_no_tensor_of_floats_is_named(losses, message):
    with pytest.raises(ValueError, match=message):
        Balancer(2)(losses)


@pytest.mark.parametrize("form", ["list", "mask"])
def test_a_step_without_any_loss_has_a_gradient_of_zero(form):
    x = torch.ones(2, requires_grad=True)
    balance = Balancer(2)
    mask = torch.zeros(2, dtype=torch.bool)
    total = balance([None, None]) if form == "list" else balance(x, mask=mask)
    total.backward()
    assert total == 0.0
    assert form == "list" or x.grad.tolist() == [0.0, 0.0]


def test_numbers_beside_tensors_are_constants():
    x = torch.ones((), requires_grad=True)
    balance = Balancer(AdaLoss(2, gamma=0.0))
    total = balance([x, 4.0])
    total.backward()
    assert (total.item(), x.grad.item()) == (2.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int32])
def test_a_state_too_narrow_for_a_mean_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        Balancer(2, dtype=dtype)


def test_repr_shows_the_scheme():
    scheme = AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 10))
    assert repr(Balancer(scheme, names=["a", "b"])) == f"Balancer({scheme}, names=['a', 'b'])"
