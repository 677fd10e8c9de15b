"""Forks in PyTorch: what is compiled, copied, loaded, counted and differentiated twice."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

from loss_balance import AdaLoss, LinearSchedule

torch = pytest.importorskip("torch")
from support.balancers.dispatches import SYNCS, Dispatches
from torch import nn

from loss_balance.backends.torch import Balancer

EXITS = 4


class Net(nn.Module):
    """A chain of small blocks with a head each."""

    def __init__(self, balance, exits=EXITS):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(exits))
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(exits))
        self.balance = balance

    def forward(self, x):
        found = []
        for i, (block, head) in enumerate(zip(self.blocks, self.heads, strict=True)):
            branch, x = self.balance.fork(torch.tanh(block(x)), i)
            found.append(head(branch))
        return found


def losses_of(logits):
    return [(each**2).mean() * (k + 1) for k, each in enumerate(logits)]


def trained(compiled=None, steps=4):
    """Parameters and weights after some steps, guided ever more, and how many graphs they took."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    scheme = AdaLoss(EXITS, decay=0.5)
    balance = Balancer(scheme, equilibrium=True, pull=0.5, priorities=[1.0, 2.0, 0.5, 1.0])
    net = Net(balance)
    x = torch.randn(5, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)

    def forward(x):
        logits = net(x)
        return torch.stack(losses_of(logits)), balance.guidance(logits, LinearSchedule(0.0, 1.0, 5))

    def whole(x):
        losses, taught = forward(x)
        return taught + balance(losses)

    if compiled == "forward":
        forward = torch.compile(forward, fullgraph=True)
    elif compiled == "step":
        whole = torch.compile(whole, fullgraph=True)
    for _ in range(steps):
        optimizer.zero_grad()
        whole(x).backward()
        optimizer.step()
    kept = [p.detach().numpy().copy() for p in net.parameters()]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return [*kept, balance.weights.numpy().copy()], graphs


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # Inductor's own
@pytest.mark.parametrize("compiled", ["forward", "step"])
def test_compiled_training_is_the_eager_one_and_one_graph(compiled):
    """The weights move between forward and backward: a compiler must not read them anew."""
    eager, _ = trained()
    found, graphs = trained(compiled)
    assert graphs == 1
    for ours, theirs in zip(found, eager, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def slope(balance):
    """d (sum of losses) / d x through two forks; losses x and 10 x."""
    x = torch.ones((), requires_grad=True)
    first, onward = balance.fork(1.0 * x, 0)
    second, _ = balance.fork(onward, 1)
    (first + 10.0 * second).backward()
    return x.grad.item()


def moved():
    balance = Balancer(AdaLoss(2, gamma=0.0, decay=0.0), equilibrium=True)
    balance(torch.tensor([3.0, 1.0]))  # weights 1/3 and 1
    return balance


WANTED = (1.0 / 3.0 + 10.0) / (4.0 / 3.0)


def test_the_forks_follow_what_is_loaded_reset_copied_and_moved():
    balance, fresh = moved(), Balancer(AdaLoss(2, gamma=0.0, decay=0.0), equilibrium=True)
    assert slope(balance) == pytest.approx(WANTED)
    assert slope(fresh) == pytest.approx(5.5)
    fresh.load_state_dict(balance.state_dict())
    assert slope(fresh) == pytest.approx(WANTED)
    file = io.BytesIO()
    torch.save(balance, file)
    file.seek(0)
    for other in (copy.deepcopy(balance), torch.load(file, weights_only=False), balance.double()):
        assert slope(other) == pytest.approx(WANTED)
    balance.reset()
    assert slope(balance) == pytest.approx(5.5)
    assert slope(balance) == pytest.approx(5.5)


def test_in_one_step_all_forks_have_the_weights_before_it():
    balance = Balancer(AdaLoss(2, gamma=0.0, decay=0.0), equilibrium=True)
    x = torch.ones((), requires_grad=True)
    first, onward = balance.fork(1.0 * x, 0)
    second, _ = balance.fork(onward, 1)
    balance([first, 10.0 * second]).backward()
    assert x.grad.item() == pytest.approx(5.5)
    assert slope(balance) == pytest.approx((1.0 + 0.1 * 10.0) / 1.1)


def test_without_gradients_features_go_through_as_they_are():
    features = {"maps": [torch.ones(2)], "count": 3, "whole": torch.arange(2)}
    with torch.no_grad():
        assert all(side is features for side in moved().fork(features, 0))
    read, onward = moved().fork({**features, "maps": [torch.ones(2, requires_grad=True)]}, 0)
    assert read["count"] == onward["count"] == 3
    assert read["whole"] is onward["whole"] is features["whole"]


def test_the_mixed_gradient_can_be_part_of_a_loss():
    """As a penalty on it: its own gradient goes back through the same mixing."""
    x = torch.tensor([0.5, -1.0], requires_grad=True)
    branch, onward = moved().fork(x**2, 0)
    total = (branch**2).sum() + (3.0 * onward).sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    own = 0.25  # of a third and one
    torch.testing.assert_close(gradient, own * 4 * x**3 + (1 - own) * 6 * x)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    mixed_again = own * 4 * x**2 + own * own * 8 * x**2 + (1 - own) * 6
    torch.testing.assert_close(second, mixed_again.detach())


def dispatched(exits):
    """Operators of the forks of a step, there and back."""
    balance = Balancer(exits, equilibrium=True)
    for _ in range(2):
        x = torch.ones(3, requires_grad=True)
        with Dispatches() as seen:
            found = []
            onward = x
            for i in range(exits):
                branch, onward = balance.fork(onward, i)
                found.append(branch)
            torch.autograd.grad(found, x, [torch.ones(3)] * exits)
        balance([1.0 * x.sum() for _ in range(exits)])
    return seen


def test_a_fork_costs_one_kernel_and_waits_for_nothing():
    few, many = dispatched(3), dispatched(9)
    assert not SYNCS & {*few.names, *many.names}
    costs = [len(seen.kernels) for seen in (few, many)]
    assert (costs[1] - costs[0]) / 6 <= 1.0


def test_evaluation_between_the_steps_changes_nothing():
    torch._dynamo.reset()
    balance = Balancer(AdaLoss(EXITS, decay=0.5), equilibrium=True)
    net = Net(balance)
    x = torch.randn(5, 4)
    forward = torch.compile(net, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (net, forward):
        for inference in (torch.no_grad(), torch.inference_mode()):
            balance.reset()
            net.eval()
            with inference:
                run(x)
            net.train()
            balance.import_state({**balance.export_state(), "weights": [0.1, 0.2, 0.5, 1.0]})
            net.zero_grad()
            balance(losses_of(run(x))).backward()
            gradients.append(net.blocks[0].weight.grad.clone())
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_transforms_of_functions_go_through_forks():
    balance = moved()

    def total(x):
        first, onward = balance.fork(torch.tanh(x), 0)
        second, _ = balance.fork(torch.tanh(2.0 * onward), 1)
        return (first**2).sum() + (second**2).sum()

    several = torch.randn(3, 4)
    wanted = []
    for x in several:
        x = x.clone().requires_grad_()
        total(x).backward()
        wanted.append(x.grad)
    torch.testing.assert_close(torch.func.grad(total)(several[0]), wanted[0])
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(total))(several), torch.stack(wanted)
    )
