"""The PyTorch blocks of docs/guides about optimizers, in one process by hand."""

from __future__ import annotations

import copy
import math

import pytest

torch = pytest.importorskip("torch")
from support.docs.loop_page import begin, go_on, run
from support.docs.loop_torch import (
    assert_saw,
    losses,
    recorded,
    recording,
    standing,
    steps_of,
    undivided,
)

from loss_balance.backends.numpy import Balancer as NumPyBalancer
from loss_balance.experiments.verification.oracle import Oracle


def test_accumulated_micro_batches_leave_the_averages_of_the_undivided_batch():
    page = standing()
    steps, expected = steps_of(page.optimizer), undivided(losses(page), 4)
    go_on(page, "torch", "accumulate")
    assert len(steps) == 2
    assert_saw(page.balance, expected)


def test_under_a_scaler_averages_skip_infinite_losses_and_no_others():
    page = standing()
    batches = list(page.batches)
    batches[3] = [1e6 * x for x in batches[3]]  # its square is beyond float16
    steps, expected = steps_of(page.optimizer), losses(page)
    expected[3] = [math.inf, math.inf]
    go_on(page, "torch", "amp", batches=batches)
    assert len(steps) == 6  # not the first, whose gradient overflows when scaled, nor the fourth
    state = page.balance.export_state()
    assert state["step"] == 8
    assert state["skipped"].tolist() == [1, 1]
    oracle = Oracle(2)
    for one in expected:
        oracle.update(one)
    assert state["average"].tolist() == pytest.approx(oracle.average, rel=1e-2)  # float16
    assert page.balance.average.dtype == torch.float32


def test_each_balancer_of_a_gan_sees_its_own_losses_once_a_step_of_its_optimizer():
    page = begin("torch")
    generator, discriminator = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
    optimizers = {
        "optimizer_d": torch.optim.SGD(discriminator.parameters(), lr=0.0),
        "optimizer_g": torch.optim.SGD(generator.parameters(), lr=0.0),
    }
    steps = [steps_of(optimizer) for optimizer in optimizers.values()]
    batches = [(torch.randn(16, 4), torch.randn(16, 8)) for _ in range(5)]
    nets = {"generator": generator, "discriminator": discriminator}
    go_on(page, "torch", "gan", batches=batches, **nets, **optimizers)
    assert [len(taken) for taken in steps] == [5, 5]
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    seen_d, seen_g = [], []
    for z, image in batches:
        fake, one = generator(z), torch.ones(16, 1)
        of_fake = discriminator(fake)
        seen_d.append([bce(discriminator(image), one).item(), bce(of_fake, 0 * one).item()])
        seen_g.append([bce(of_fake, one).item(), (fake - image).abs().mean().item()])
    assert_saw(page.balance_d, seen_d)
    assert_saw(page.balance_g, seen_g)


def test_lbfgs_observes_once_a_step_and_searches_in_one_function():
    page = begin("torch")
    seen = recorded(page)
    balancer, calls = recording(page.Balancer)
    go_on(page, "torch", "lbfgs", Balancer=balancer)
    begins = [i for i, (_, _, options) in enumerate(calls) if options["training"]]
    assert len(begins) == len(page.batches)
    assert_saw(page.balance, [seen[i] for i in begins])
    for begin_, end in zip(begins, [*begins[1:], len(calls)], strict=True):
        assert end - begin_ > 2
        assert len({tuple(weights) for _, weights, _ in calls[begin_:end]}) == 1


class Sam:
    """Sharpness-aware minimisation, in the interface that is used everywhere."""

    def __init__(self, parameters, rho=0.05, lr=0.01):
        self.parameters, self.rho, self.lr = list(parameters), rho, lr
        self.steps = 0

    def first_step(self, zero_grad):
        norm = torch.stack([p.grad.norm() for p in self.parameters]).norm()
        self.shifts = [self.rho * p.grad / norm for p in self.parameters]
        self._move(self.shifts, zero_grad)

    def second_step(self, zero_grad):
        grads = [-self.lr * p.grad for p in self.parameters]
        self._move([g - shift for g, shift in zip(grads, self.shifts, strict=True)], zero_grad)
        self.steps += 1

    @torch.no_grad()
    def _move(self, by, zero_grad):
        for parameter, shift in zip(self.parameters, by, strict=True):
            parameter += shift
            parameter.grad = None if zero_grad else parameter.grad


def test_sam_observes_once_a_step_at_the_point_where_it_stands():
    page = begin("torch")
    optimizer, seen = Sam(page.net.parameters()), recorded(page)
    go_on(page, "torch", "sam", optimizer=optimizer)
    assert optimizer.steps == len(page.batches)
    assert_saw(page.balance, seen[::2])


def test_the_state_of_an_averaged_model_follows_the_live_one_and_moves_no_further():
    page = run("torch", "ema")
    live, copied = page.model["balance"], page.ema.module["balance"]
    assert live.step == copied.step == len(page.batches)
    assert live is not copied
    assert live.training
    torch.testing.assert_close(copied.held(), live.held(), rtol=0, atol=0)
    assert not torch.equal(page.ema.module["net"].weight, page.net.weight)


def test_a_recomputed_step_moves_the_state_once_and_trains_as_without():
    page = standing()
    page.optimizer = torch.optim.SGD(page.net.parameters(), lr=0.01)
    plain, plain_balance = copy.deepcopy(page.net), NumPyBalancer(2, dtype="float32")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    for batch in page.batches:
        losses = page.losses_of(plain, batch)
        plain_balance(losses.tolist())
        optimizer.zero_grad()
        (losses * torch.tensor(plain_balance.weights)).sum().backward()
        optimizer.step()
    go_on(page, "torch", "recompute")
    assert page.balance.step == len(page.batches)
    assert page.balance.training
    torch.testing.assert_close(page.net.weight, plain.weight)
    assert page.balance.weights.tolist() == pytest.approx(plain_balance.weights.tolist())
