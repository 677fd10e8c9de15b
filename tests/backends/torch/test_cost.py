"""What a balanced step costs in PyTorch: counted, not timed."""

from __future__ import annotations

import shutil

import pytest

from loss_balance import AdaLoss, Constant, Linear, LinearSchedule

torch = pytest.importorskip("torch")
from support.balancers.dispatches import SYNCS, Dispatches
from torch._dynamo.testing import CompileCounterWithBackend

from loss_balance.backends.torch import Balancer


def kernels_of_a_step(scheme, *, stacked, dtype=torch.float32, **options):
    """Forward, state update and backward of the second step."""
    values = torch.arange(1.0, scheme.num_losses + 1, dtype=dtype)
    losses = values.clone().requires_grad_() if stacked else list(values.requires_grad_().unbind())
    balance = Balancer(scheme, **options)
    torch.autograd.grad(balance(losses), losses)
    with Dispatches() as seen:
        torch.autograd.grad(balance(losses), losses)
    assert not SYNCS & set(seen.names)
    root = seen.kernels.index("ones_like")  # the gradient of any loss begins with it
    return seen.kernels[:root] + seen.kernels[root + 1 :]


@pytest.mark.parametrize(
    ("stacked", "dtype", "most"),
    [
        (True, torch.float32, 15),
        (False, torch.float32, 16),
        (True, torch.bfloat16, 17),
        (False, torch.bfloat16, 18),
        (True, torch.float16, 20),
        (False, torch.float16, 21),
    ],
)
def test_a_step_takes_few_kernels_whatever_the_number_of_losses(stacked, dtype, most):
    counts = {
        n: len(kernels_of_a_step(AdaLoss(n), stacked=stacked, dtype=dtype)) for n in (2, 9, 75)
    }
    assert len(set(counts.values())) == 1, counts
    assert counts[75] <= most


@pytest.mark.parametrize(
    ("scheme", "most"),
    [
        (AdaLoss(75, final_weight=2.0), 18),
        (AdaLoss(75, update_every=100), 19),
        (AdaLoss(75, gamma=LinearSchedule(1.0, 0.0, 100)), 22),
        (AdaLoss(75, clip=10.0), 18),
        (AdaLoss(75, warmup=10), 31),
        (Constant(75), 9),
        (Linear(75), 9),
    ],
)
def test_options_cost_a_fixed_number_too(scheme, most):
    assert len(kernels_of_a_step(scheme, stacked=False)) <= most


def test_priorities_cost_one_kernel_and_no_copy_to_the_device():
    plain, favoured = (
        kernels_of_a_step(AdaLoss(3), stacked=True, priorities=p) for p in (None, (1.0, 2.0, 0.0))
    )
    assert sorted(favoured) == sorted([*plain, "mul"])


@pytest.mark.parametrize("update", [True, False])
def test_a_told_update_costs_a_fixed_number(update):
    counts = set()
    for n in (2, 75):
        balance, losses = Balancer(n), torch.arange(1.0, n + 1)
        balance(losses, update=False)
        with Dispatches() as seen:
            balance(losses, update=update)
        counts.add(len(seen.kernels))
        assert not SYNCS & set(seen.names)
    assert len(counts) == 1
    assert counts.pop() <= (42 if update else 20)  # a NaN is told by a comparison of its own


def test_the_count_would_notice_a_loop_over_the_losses():
    with Dispatches() as seen:
        sum(torch.ones(9).unbind())
    assert len(seen.kernels) > 9


def test_the_sync_check_would_notice_one():
    with Dispatches() as seen:
        torch.ones(3).sum().item()
    assert SYNCS & set(seen.names)


def containers(x):
    """The same three losses in every form a user may pass."""
    losses = [x, 2 * x, 3 * x]
    return [losses, dict(zip("abc", losses, strict=True)), torch.stack(losses)]


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize(
    "scheme",
    [
        AdaLoss(3),
        AdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 3), final_weight=2.0, update_every=2),
        Constant(3),
    ],
    ids=["default", "options", "constant"],
)
def test_compiles_to_one_graph_and_never_again(scheme, form):
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled, eager = (Balancer(scheme, names="abc") for _ in range(2))

    @torch.compile(fullgraph=True, backend=counter)
    def step(x):
        return compiled(containers(x)[form])

    for k in range(1, 6):
        x, y = (torch.tensor(float(k), requires_grad=True) for _ in range(2))
        total, expected = step(x), eager(containers(y)[form])
        total.backward()
        expected.backward()
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(x.grad, y.grad)
    assert counter.frame_count == 1
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)


def test_a_masked_step_compiles_to_one_graph():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    balance = Balancer(3)
    step = torch.compile(balance, fullgraph=True, backend=counter)
    for k in range(4):
        mask = torch.arange(3) != k
        step(torch.ones(3, requires_grad=True), mask=mask).backward()
    assert counter.frame_count == 1
    assert balance.skipped.tolist() == [0, 0, 0]


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor compiles with g++")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's own
def test_inductor_fuses_the_whole_step_into_few_kernels():
    from torch._inductor import metrics

    torch.compiler.reset()
    metrics.reset()
    balance, eager = Balancer(75), Balancer(75)
    step = torch.compile(balance, fullgraph=True)
    for _ in range(2):
        x, y = (torch.arange(1.0, 76.0).requires_grad_() for _ in range(2))
        step(x).backward()
        eager(y).backward()
        torch.testing.assert_close(x.grad, y.grad)
    assert metrics.generated_kernel_count <= 6
