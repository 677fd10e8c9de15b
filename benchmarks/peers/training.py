"""A run of one way: steps whose losses can be damaged, and what its weights are worth after."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import EPOCH, RATE, TASKS, Batch, Net, batches, criteria

Damage = Callable[[Losses], Losses]


class Run:
    """A network, an optimiser and a way.

    As with a GradScaler, a step whose gradients are not all finite is not taken.

    Args:
        kind: of the way.
        seed: of the network's start.
        around: put around the network, such as DDP.
    """

    def __init__(
        self,
        kind: type[Way],
        seed: int = 0,
        around: Callable[[nn.Module], nn.Module] = lambda net: net,
    ) -> None:
        self.net = Net(seed)
        self.way = kind(TASKS, list(self.net.trunk.parameters()))
        learned = [*self.net.parameters(), *self.way.parameters()]
        self.optimizer = SGD(learned, lr=RATE, momentum=0.9)
        self.called = around(self.net)
        self.steps = 0

    def step(self, batch: Batch, damage: Damage = lambda losses: losses) -> bool:
        """Trains on a batch; whether the step was taken."""
        x, y = batch
        output = self.called(x)
        self.optimizer.zero_grad()
        self.way.backward(damage(criteria(output, y)), output)
        finite = self.finite()
        if finite:
            self.optimizer.step()
        self.way.after_step(lambda: damage(criteria(self.called(x), y)))
        self.passed()
        return finite

    def passed(self) -> None:
        """A batch is over, be it that it was left out."""
        self.steps += 1
        if self.steps % EPOCH == 0:
            self.way.after_epoch()

    def finite(self) -> bool:
        """Whether all gradients are that the optimiser knows of."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        return all(bool(p.grad.isfinite().all()) for p in held if p.grad is not None)

    def parameters(self) -> Tensor:
        """All of the network's, in one vector."""
        return torch.cat([p.detach().flatten() for p in self.net.parameters()])

    def fingerprint(self) -> Tensor:
        """The gradient that the way makes of one network and batch, the same for every run.

        Two runs that give equal ones weigh their losses alike. It is the last thing that is asked
        of a run: its network is another one after it.
        """
        self.net.load_state_dict(Net(123).state_dict())
        self.optimizer.zero_grad()
        torch.manual_seed(0)  # for those who draw their weights
        x, y = batches(1, seed=77)[0]
        output = self.net(x)
        self.way.backward(criteria(output, y), output)
        return torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None])


def apart(one: Tensor, other: Tensor) -> float:
    """How far a vector is from another, relative to that one's length."""
    return float((one - other).norm() / other.norm())
