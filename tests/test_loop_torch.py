"""The PyTorch blocks of docs/training-loop.md, but those with a trainer or several processes."""

from __future__ import annotations

import copy
import math

import pytest

torch = pytest.importorskip("torch")
from loop_page import begin, go_on, run  # noqa: E402
from loop_torch import assert_saw, losses, standing, steps_of, undivided  # noqa: E402

from loss_balance import AdaLoss  # noqa: E402
from loss_balance.backends.numpy import Balancer as NumPyBalancer  # noqa: E402
from loss_balance.experiments.oracle import Oracle  # noqa: E402


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
    calls, weights = [], []

    def losses_of(net, batch, original=page.losses_of):
        calls.append(None)
        if hasattr(page, "balance"):
            weights.append(page.balance.weights.tolist())
        return original(net, batch)

    go_on(page, "torch", "lbfgs", losses_of=losses_of)
    assert page.balance.step == len(page.batches)
    assert len(calls) > 2 * len(page.batches)
    # One set of weights a step: what a call sees before it is that of the step, or of the one before
    assert len({tuple(w) for w in weights}) <= len(page.batches) + 1


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
    optimizer, first = Sam(page.net.parameters()), []

    def losses_of(net, batch, original=page.losses_of, calls=[]):  # noqa: B006
        calls.append(None)
        found = original(net, batch)
        if len(calls) % 2:
            first.append(found.tolist())
        return found

    go_on(page, "torch", "sam", optimizer=optimizer, losses_of=losses_of)
    assert optimizer.steps == len(page.batches)
    assert_saw(page.balance, first)


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


def test_a_state_is_resumed_by_name_and_what_was_changed_is_said():
    page = run("torch", "resume")
    assert page.resumed.weights.tolist() == page.balance.weights.tolist()[::-1]
    assert page.resumed.step == 1
    with pytest.raises(RuntimeError, match=r"gamma was 0\.05, is 0\.2"):
        page.Balancer(AdaLoss(2, gamma=0.2), names=["depth", "labels"]).load_state_dict(
            page.saved["balance"]
        )
    with pytest.raises(RuntimeError, match="its losses are"):
        page.Balancer(2, names=["depth", "normals"]).load_state_dict(page.saved["balance"])
    broken = page.saved["balance"] | {"average": torch.tensor([math.nan, 1.0])}
    with pytest.raises(RuntimeError, match="average must be finite"):
        page.Balancer(2, names=["depth", "labels"]).load_state_dict(broken)
    go_on(page, "torch", "resume-changed")
    assert page.tuned.average.tolist() == page.balance.average.tolist()
    assert page.more.average.tolist() == [*page.balance.average.tolist(), -1.0]
    assert page.more.step == 1


def test_a_state_of_another_framework_goes_on_also_through_safetensors():
    pytest.importorskip("safetensors")
    page = run("torch", "foreign")
    assert page.balance.average.tolist() == [4.0, 1.0]
    assert page.balance.weights.tolist() == pytest.approx([0.2875, 1.0])
    assert page.balance.step == 1


def test_a_term_that_ramps_up_disturbs_nobody_and_counts_as_much_as_it_should():
    page = standing()
    totals, expected = [], losses(page)
    balancer = page.Balancer

    class Recording(balancer):
        def forward(self, losses, **options):
            totals.append(super().forward(losses, **options))
            return totals[-1]

    go_on(page, "torch", "curriculum", Balancer=Recording)
    assert_saw(page.balance, expected)
    oracle = Oracle(2)
    for step, (total, (pixels, kl)) in enumerate(zip(totals, expected, strict=True)):
        weights = oracle.update([pixels, kl])
        ramp = min(1.0, step / 4)
        assert total.item() == pytest.approx(weights[0] * pixels + ramp * weights[1] * kl)


# PyTorch's own, which it means to hide while it traces
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning:torch._(dynamo|subclasses)"
)
def test_none_and_zero_are_absent_and_a_changing_mask_never_recompiles():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()

    def compile_(module, fullgraph, compile_=torch.compile):
        return compile_(module, fullgraph=fullgraph, backend=counter)

    page = standing()
    torch_ = type(torch)("torch")
    vars(torch_).update(vars(torch), compile=compile_)
    go_on(page, "torch", "absent", torch=torch_)
    assert counter.frame_count == 1
    depth, labels = (loss.item() for loss in (page.depth, page.labels))
    present = [[depth, None], [depth, None], [depth, labels], [depth, None], [None, labels]]
    assert_saw(page.balance, present)


def test_the_gradient_of_a_masked_mean_is_finite_where_the_count_is_clamped():
    page = run("torch", "masked-mean")
    assert torch.isfinite(page.net.weight.grad).all()
    assert page.net.weight.grad[0].any()
    assert not page.net.weight.grad[1].any()
    error = (page.net(page.x) - page.y) ** 2 * page.labelled
    without = error.sum(0) / page.labelled.sum(0)
    page.net.zero_grad()
    page.balance(without, mask=page.labelled.any(0)).backward()
    assert torch.isnan(page.net.weight.grad).any()  # as the page says


def test_a_spike_is_forgotten_where_losses_are_clipped():
    page = run("torch", "outliers")
    clipped = page.balance.average[0].item()
    assert clipped < 2.0 * 1.2
    without = page.Balancer(AdaLoss(2))
    for step in range(5000):
        without(torch.tensor([2.0 * (1e30 if step == 150 else 1.0), 1.0]))
    assert without.average[0].item() > 1e3  # "thousands of steps"


def test_warm_up_makes_the_first_values_count_alike():
    balance = run("torch", "outliers").Balancer(AdaLoss(2, warmup=100))
    for step in range(100):
        balance(torch.tensor([1e3 if step == 0 else 1.0, 1.0]))
    assert balance.average.tolist() == pytest.approx([(1e3 + 99) / 100, 1.0])


def test_negative_losses_are_taken_or_shown():
    with pytest.warns(UserWarning, match="losses elbo: NaN, infinite or negative") as caught:
        page = run("torch", "negative")
    assert len(caught) == 1
    assert page.loss.item() == pytest.approx(-1.0 + 0.1 * 2.0)
    assert page.metrics["loss_skipped/elbo"] == 98.0
    assert page.metrics["loss_weight/elbo"] == 1.0
    with pytest.raises(ValueError, match="losses must not be negative"):
        page.Balancer(2)([torch.tensor(-1.0), torch.tensor(1.0)])


def test_a_loss_that_is_gone_no_longer_holds_the_others():
    page = run("torch", "reset")
    assert page.loss.item() == 1.0
    assert page.balance.weights[0].item() == 1.0


def test_metrics_are_floats_by_name():
    page = run("torch", "metrics")
    kinds = ("loss_weight", "loss_average", "loss_skipped")
    names = [f"{kind}/{name}" for kind in kinds for name in ("depth", "labels")]
    assert set(page.row) == {"loss_sum", *names}
    assert all(isinstance(value, float) for value in page.row.values())
