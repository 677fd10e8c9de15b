"""The PyTorch blocks of docs/guides about losses and their state."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from support.docs.loop_page import go_on, need, run
from support.docs.loop_torch import assert_saw, losses, recording, standing

from loss_balance import AdaLoss


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
    need("safetensors")
    page = run("torch", "foreign")
    assert page.balance.average.tolist() == [4.0, 1.0]
    assert page.balance.weights.tolist() == pytest.approx([0.2875, 1.0])
    assert page.balance.step == 1


def test_a_term_that_ramps_up_disturbs_nobody_and_counts_as_much_as_it_should():
    page = standing()
    expected = losses(page)
    balancer, calls = recording(page.Balancer)
    go_on(page, "torch", "curriculum", Balancer=balancer)
    assert_saw(page.balance, expected)
    for step, ((total, weights, _), (pixels, kl)) in enumerate(zip(calls, expected, strict=True)):
        ramp = min(1.0, step / 4)
        assert total == pytest.approx(weights[0] * pixels + ramp * weights[1] * kl)


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
