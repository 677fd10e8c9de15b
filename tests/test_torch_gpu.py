"""What only a CUDA device can show; skipped without one."""

from __future__ import annotations

import pytest

from loss_balance import AdaLoss, LinearSchedule

torch = pytest.importorskip("torch")
from loss_balance.backends.torch import Balancer  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")

SCHEMES = [
    AdaLoss(9),
    AdaLoss(9, gamma=LinearSchedule(1.0, 0.0, 5), final_weight=2.0, update_every=2),
]


@pytest.fixture
def no_sync():
    """Any wait for the device raises."""

    def strict():
        torch.cuda.set_sync_debug_mode("error")

    yield strict
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("scheme", SCHEMES, ids=["default", "options"])
@pytest.mark.parametrize(
    "form", ["list", "stacked", "absent", "masked", "numbers", "priorities", "accumulate"]
)
def test_no_step_after_the_first_waits_for_the_device(scheme, form, no_sync):
    options = {"priorities": (2.0,) * 9} if form == "priorities" else {}
    balance = Balancer(scheme, accumulate=2 if form == "accumulate" else 1, **options).cuda()
    mask = torch.arange(9, device="cuda") > 2

    def step():
        x = torch.rand(9, device="cuda", requires_grad=True)
        losses = list(x.unbind())
        if form == "stacked":
            losses = x
        elif form == "absent":
            losses[3] = None
        elif form == "numbers":
            losses[2:4] = [0, 1.5]
        balance(losses, mask=mask if form == "masked" else None).backward()

    step()
    no_sync()
    for _ in range(5):
        step()


@pytest.mark.parametrize("scheme", SCHEMES, ids=["default", "options"])
def test_a_captured_graph_goes_on_updating_the_state(scheme):
    captured, eager = Balancer(scheme).cuda(), Balancer(scheme).cuda()
    losses = torch.rand(9, device="cuda")
    batches = [torch.rand(9, device="cuda") for _ in range(6)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        captured(losses)
    torch.cuda.current_stream().wait_stream(side)
    eager(losses)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = captured(losses)
    for batch in batches:
        losses.copy_(batch)
        graph.replay()
        torch.testing.assert_close(total, eager(batch))
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], value)


@pytest.mark.parametrize("micro", [2, 4])
def test_two_captured_graphs_accumulate(micro):
    """One that notes, one that updates, replayed as often as one likes."""
    captured, eager = Balancer(9).cuda(), Balancer(9).cuda()
    losses = torch.rand(9, device="cuda")
    graphs = {}
    for update in (False, True):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            captured(losses, update=update)
        torch.cuda.current_stream().wait_stream(side)
    captured.reset()
    for update in (False, True):
        graphs[update] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[update]):
            captured(losses, update=update)
    for _ in range(3):
        for k in range(micro):
            batch = torch.rand(9, device="cuda")
            losses.copy_(batch)
            graphs[k == micro - 1].replay()
            eager(batch, update=k == micro - 1)
    for name, value in eager.named_buffers():
        torch.testing.assert_close(getattr(captured, name), value)


def test_the_state_follows_its_model_to_the_device():
    balance = Balancer(3)
    balance(torch.tensor([1.0, 2.0, 3.0]))
    before = balance.export_state()
    for name, value in balance.cuda().half().export_state().items():
        assert (value == before[name]).all()
    assert {buffer.device.type for buffer in balance.buffers()} == {"cuda"}


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_steps_equal_eager_ones(mode):
    torch.compiler.reset()
    compiled, eager = Balancer(9).cuda(), Balancer(9).cuda()
    step = torch.compile(compiled, fullgraph=True, mode=mode)
    for _ in range(5):
        batch = torch.rand(9, device="cuda")
        x, y = batch.clone().requires_grad_(), batch.clone().requires_grad_()
        step(x).backward()
        eager(y).backward()
        torch.testing.assert_close(x.grad, y.grad)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)
