"""A balancer in training loops of PyTorch that do more than one pass after the other."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest

from loss_balance import AdaLoss, LinearSchedule, LogLoss

torch = pytest.importorskip("torch")
from torch import nn
from torch.utils.checkpoint import checkpoint

from loss_balance.backends.torch import Balancer
from loss_balance.experiments.verification.oracle import Oracle


def batches(count, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, size, 4, generator=generator)


class Task(nn.Module):
    """A network with two losses of unlike scale."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)

    def forward(self, x):
        errors = (self.net(x) - x[:, :2]) ** 2
        return [10.0 * errors[:, 0].mean(), errors[:, 1].mean()]


def observed_once_each(task, xs, step):
    """Trains with `step(balance, x)`; the state must be that of one look at each batch."""
    balance, looking = Balancer(AdaLoss(2, decay=0.5)), Balancer(AdaLoss(2, decay=0.5))
    for x in xs:
        with torch.no_grad():
            looking(task(x))
        step(balance, x)
    assert int(balance.step) == len(xs)
    torch.testing.assert_close(balance.average, looking.average)


def test_a_closure_that_lbfgs_calls_often_observes_once():
    task = Task()
    optimiser = torch.optim.LBFGS(task.parameters(), lr=0.1, max_iter=5)
    calls = []

    def step(balance, x):
        first = True

        def closure():
            nonlocal first
            optimiser.zero_grad()
            total = balance(task(x), training=first)
            first = False
            calls.append(total.item())
            total.backward()
            return total

        optimiser.step(closure)
        assert calls[-1] < calls[-2]  # weights that stand still: the search sees one function

    observed_once_each(task, batches(4), step)
    assert len(calls) >= 4 * 3


def test_the_second_pass_of_sharpness_aware_minimisation_observes_nothing():
    task = Task()
    optimiser = torch.optim.SGD(task.parameters(), 0.01)

    def step(balance, x):
        balance(task(x)).backward()
        with torch.no_grad():
            uphill = [0.05 * p.grad.sign() for p in task.parameters()]
            for p, way in zip(task.parameters(), uphill, strict=True):
                p.add_(way)
        optimiser.zero_grad()
        balance(task(x), training=False).backward()
        with torch.no_grad():
            for p, way in zip(task.parameters(), uphill, strict=True):
                p.sub_(way)
        optimiser.step()
        optimiser.zero_grad()

    observed_once_each(task, batches(4), step)


@contextlib.contextmanager
def looking_away(balance):
    balance.eval()
    try:
        yield
    finally:
        balance.train()


def gradients(task):
    return [p.grad.clone() for p in task.parameters()]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_around_the_balancer_observes_once(reentrant):
    task = Task()

    def step(balance, x):
        plain, copied = copy.deepcopy(task), copy.deepcopy(balance)
        copied(plain(x)).backward()

        def losses(x):
            if reentrant:  # whose first pass has no gradients
                return balance(task(x), training=not torch.is_grad_enabled())
            return balance(task(x))

        away = (
            {}
            if reentrant
            else {"context_fn": lambda: (contextlib.nullcontext(), looking_away(balance))}
        )
        task.zero_grad()
        checkpoint(losses, x.requires_grad_(), use_reentrant=reentrant, **away).backward()
        torch.testing.assert_close(gradients(task), gradients(plain))
        x.requires_grad_(False)

    observed_once_each(task, batches(3), step)


def test_a_gradscaler_that_skips_a_step_leaves_the_averages_sane():
    task, balance = Task(), Balancer(2)
    optimiser = torch.optim.SGD(task.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step, x in enumerate(batches(6)):
        before = balance.average.clone()
        optimiser.zero_grad()
        losses = task(x)
        if step == 3:
            losses[0] = losses[0] * float("inf")
        with torch.autocast("cpu", torch.bfloat16):
            total = balance(losses)
        weights = copy.deepcopy(task.state_dict())
        scaler.scale(total).backward()
        scaler.step(optimiser)
        scaler.update()
        if step == 3:
            torch.testing.assert_close(task.state_dict(), weights)  # skipped
            assert balance.average[0] == before[0]
    assert balance.skipped.tolist() == [1, 0]
    assert balance.average.isfinite().all()
    assert scaler.get_scale() < 2.0**10


def test_a_step_skipped_for_its_gradient_alone_had_real_losses():
    """The scaler leaves the network as it was; the averages are those of all losses there were."""
    net, balance, oracle = nn.Linear(2, 2), Balancer(2), Oracle(2)
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)  # the first ones overflow
    skipped = 0
    for x in torch.randn(8, 16, 2, generator=torch.Generator().manual_seed(0)):
        before = copy.deepcopy(net.state_dict())
        optimiser.zero_grad()
        losses = ((3.0 * net(x) - 1.0) ** 2).mean(0)
        scale = scaler.get_scale()
        scaler.scale(balance(losses)).backward()
        scaler.step(optimiser)
        scaler.update()
        weights = oracle.update(losses.tolist())
        if scaler.get_scale() < scale:
            skipped += 1
            torch.testing.assert_close(net.state_dict(), before, rtol=0.0, atol=0.0)
    assert 0 < skipped < 8
    assert balance.average.tolist() == pytest.approx(oracle.average, rel=1e-6)
    assert balance.weights.tolist() == pytest.approx(weights, rel=1e-6)
    assert balance.skipped.tolist() == [0, 0]


def test_a_mean_over_nothing_is_cured_by_a_clamp():
    """LibMTL#11: 0 / 0 is upstream of the mask, and so is its gradient."""
    x = torch.ones(4, 2)
    have = torch.tensor([[1.0, 0.0]] * 4)
    found = []
    for least in (0, 1):
        net = nn.Linear(2, 2)
        count = have.sum(0).clamp(min=least)
        losses = (net(x) ** 2 * have).sum(0) / count
        Balancer(2)(losses, mask=have.any(0)).backward()
        found.append(bool(net.weight.grad.isfinite().all()))
    assert found == [False, True]
    assert "clamp(min=1)" in Balancer.forward.__doc__


@pytest.mark.parametrize("absent", [False, True])
def test_micro_batches_leave_the_averages_of_the_undivided_batch(absent):
    divided, whole = Balancer(AdaLoss(2, decay=0.5), accumulate=4), Balancer(AdaLoss(2, decay=0.5))
    for step in range(3):
        rows = torch.rand(4, 2, generator=torch.Generator().manual_seed(step)) + 0.1
        there = torch.ones(4, 2, dtype=torch.bool)
        if absent:
            there = torch.tensor([[True, False], [True, True], [False, True], [True, False]])
        before = divided.weights.clone()
        for k, (row, present) in enumerate(zip(rows, there, strict=True)):
            divided(row, mask=present)
            assert (k == 3) == bool((divided.weights != before).any())
        whole((rows * there).sum(0) / there.sum(0))
        torch.testing.assert_close(divided.average, whole.average)
        torch.testing.assert_close(divided.weights, whole.weights)
    assert int(divided.step) == 3


def test_schedules_and_windows_count_steps_of_the_optimiser():
    scheme = AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 4))
    divided, whole = Balancer(scheme, accumulate=4), Balancer(scheme)
    for _ in range(3):
        for _ in range(4):
            divided(torch.tensor([4.0, 1.0]))
        whole(torch.tensor([4.0, 1.0]))
    torch.testing.assert_close(divided.weights, whole.weights)
    assert divided.weights[0] > 0.5


def test_told_updates_write_in_place_and_read_what_is_there():
    """What a captured graph needs: no address changes, and no branch on what came before."""
    balance = Balancer(2)
    addresses = {name: buffer.data_ptr() for name, buffer in balance.named_buffers()}
    for losses in ([4.0, 1.0], [8.0, 3.0]):
        balance(torch.tensor(losses), update=False)
    assert balance.pending.tolist() == [[12.0, 4.0], [2.0, 2.0]]
    balance(torch.tensor([3.0, 2.0]), update=True)
    assert balance.average.tolist() == [5.0, 2.0]
    assert {name: buffer.data_ptr() for name, buffer in balance.named_buffers()} == addresses


def test_training_is_the_modules_mode_unless_told():
    balance = Balancer(2)
    losses = torch.tensor([4.0, 1.0])
    for mode, told, moves in (
        (True, None, 1),
        (True, False, 0),
        (False, None, 0),
        (False, True, 1),
    ):
        before = int(balance.step)
        balance.train(mode)(losses, training=told)
        assert int(balance.step) - before == moves


# What goes in


@pytest.mark.parametrize("zero", [0, 0.0, None])
def test_a_placeholder_beside_tensors_is_absent(zero):
    balance = Balancer(2)
    total = balance([torch.tensor(4.0), zero])
    assert float(total) == 4.0
    assert balance.average.tolist() == [4.0, -1.0]


def test_values_of_a_dict_and_generators_are_losses():
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(1.0)}
    for given in (losses.values(), (x for x in losses.values())):
        assert float(Balancer(np.int64(2))(given)) == pytest.approx(0.2875 * 4 + 1)


def test_all_numbers_are_a_total_without_a_gradient():
    total = Balancer(AdaLoss(2, gamma=0.0))([4, 1.0])
    assert (float(total), total.requires_grad) == (2.0, False)


@pytest.mark.parametrize("group", [[0, 1], "gloo", 3])
def test_what_is_no_group_is_refused_in_one_line(group):
    with pytest.raises(
        ValueError, match=r"^process_group must be a ProcessGroup .*, got a \w+ .*$"
    ):
        Balancer(2, process_group=group)


def test_priorities_move_with_the_model_and_need_no_copy_per_step():
    balance = Balancer(2, priorities=(1.0, 10.0)).to("meta").to_empty(device="cpu")
    assert float(balance(torch.tensor([4.0, 1.0]))) == pytest.approx(0.2875 * 4 + 10)


def test_a_weight_beyond_float16_gives_the_right_total_of_float16_losses():
    balance = Balancer(LogLoss(2))
    total = balance(torch.tensor([2.0**-18, 1.0], dtype=torch.float16))
    assert (float(total), total.dtype) == (2.0, torch.float16)
