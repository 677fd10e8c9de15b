"""torch.compile and torch.func: how often it compiles, and that it trains."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest

from loss_balance import AdaLoss, Constant, DynamicWeightAverage, UncertaintyWeighting
from loss_balance.schemes.fixed import FixedScheme

torch = pytest.importorskip("torch")
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from loss_balance.backends.torch import Balancer


def random_losses(count, size=3):
    return torch.rand(count, size, generator=torch.Generator().manual_seed(0)) + 0.1


def graphs(calls, scheme=3, **options):
    """How many it takes for calls with these keyword arguments; the values are as without."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    balance, eager = Balancer(scheme, **options), Balancer(scheme, **options)
    compiled = torch.compile(balance, fullgraph=True, backend=counter)
    for losses, call in zip(random_losses(len(calls)), calls, strict=True):
        total, expected = compiled(losses.requires_grad_(), **call), eager(losses, **call)
        total.backward()
        torch.testing.assert_close(total, expected)
    for name, value in eager.named_buffers():
        torch.testing.assert_close(getattr(balance, name), value)
    return counter.frame_count


def test_a_mask_that_changes_never_recompiles():
    assert graphs([{"mask": torch.tensor([k % 2 > 0, k % 3 > 0, True])} for k in range(8)]) == 1


def test_priorities_that_change_never_recompile():
    assert graphs([{"priorities": torch.tensor([1.0, k / 8, 0.0])} for k in range(8)]) == 1
    assert graphs([{}] * 4, priorities=(1.0, 2.0, 0.0)) == 1


@pytest.mark.parametrize("pattern", ["0001" * 3, "100110110001", "1111"])
def test_update_or_not_is_at_most_two_graphs(pattern):
    calls = [{"update": digit == "1"} for digit in pattern]
    assert graphs(calls) == len(set(pattern))


@pytest.mark.parametrize("accumulate", [2, 3, 20])
def test_any_number_of_micro_batches_is_two_graphs(accumulate):
    assert graphs([{}] * (2 * accumulate + 1), accumulate=accumulate) == 2


def test_training_or_not_is_two_graphs():
    assert graphs([{"training": k % 2 == 0} for k in range(6)]) == 2


def test_a_first_call_in_between_that_is_not_compiled_changes_nothing():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    balance = Balancer(3)
    compiled = torch.compile(balance, fullgraph=True, backend=counter)
    compiled(torch.ones(3))
    balance(torch.ones(3))
    compiled(torch.ones(3))
    assert counter.frame_count == 1


@dataclass(frozen=True)
class Own(FixedScheme):
    """A scheme of a user's own, which calls what the core does not."""

    num_losses: int

    def update(self, state, losses, xp, present=None):
        state = super().update(state, losses, xp, present)
        spread = xp.linalg.vector_norm(losses.to(xp.float32), dtype=xp.float32)
        bounded = xp.nn.functional.softplus(xp.special.expit(losses / spread))
        return state._replace(weights=xp.softmax(bounded, dim=0).to(state.weights.dtype))


def test_a_scheme_of_ones_own_finds_all_of_torch_also_compiled():
    assert graphs([{}] * 3, Own(3)) == 1


# torch.func


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        (AdaLoss(2), {}),
        (AdaLoss(2, clip=3.0, warmup=2), {"priorities": (1.0, 2.0), "accumulate": 2}),
        (DynamicWeightAverage(2, window=2), {}),
        (UncertaintyWeighting(2), {}),
        (Constant(2), {}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_stacked_balancers_move_as_each_would(scheme, options):
    alone = [Balancer(scheme, **options) for _ in range(3)]
    base = Balancer(scheme, **options)
    _, buffers = stack_module_state([Balancer(scheme, **options) for _ in range(3)])
    for step in range(4):
        losses = random_losses(3 * 4, 2).view(4, 3, 2)[step]
        totals = vmap(lambda state, x: functional_call(base, state, (x,)))(buffers, losses)
        expected = torch.stack([one(x) for one, x in zip(alone, losses, strict=True)])
        torch.testing.assert_close(totals, expected)
    for name, stacked in buffers.items():
        torch.testing.assert_close(stacked, torch.stack([getattr(one, name) for one in alone]))


def test_stacked_balancers_may_share_their_losses():
    base = Balancer(2)
    _, buffers = stack_module_state([Balancer(2) for _ in range(3)])
    totals = vmap(lambda state: functional_call(base, state, (torch.tensor([4.0, 1.0]),)))(buffers)
    torch.testing.assert_close(totals, torch.full((3,), 0.2875 * 4 + 1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.balance = Balancer(2)

    def forward(self, x):
        return self.balance((self.linear(x) ** 2).mean(0) * torch.tensor([10.0, 1.0]))


def test_an_ensemble_of_networks_trains_as_each_would():
    alone = [Net() for _ in range(3)]
    params, buffers = stack_module_state(copy.deepcopy(alone))
    base = Net()
    optimisers = [torch.optim.SGD(net.parameters(), 0.1) for net in alone]

    def loss(params, buffers, x):
        return functional_call(base, (params, buffers), (x,))

    for _ in range(3):
        x = torch.rand(3, 8, 4)
        gradients, totals = vmap(grad_and_value(loss))(params, buffers, x)
        params = {name: p - 0.1 * gradients[name] for name, p in params.items()}
        for net, optimiser, batch, total in zip(alone, optimisers, x, totals, strict=True):
            optimiser.zero_grad()
            expected = net(batch)
            expected.backward()
            optimiser.step()
            torch.testing.assert_close(total, expected)
    for name, stacked in (params | buffers).items():
        each = torch.stack(
            [net.get_parameter(name) if name in params else net.get_buffer(name) for net in alone]
        )
        torch.testing.assert_close(stacked, each)
