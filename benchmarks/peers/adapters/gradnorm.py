"""gradnorm-pytorch (`pip install gradnorm-pytorch`), called as its README does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradnorm_pytorch import GradNormLossWeighter
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria

SETTINGS = {"learning_rate": 0.01, "restoring_force_alpha": 0.5}


def by_itself(net: Any, epochs: Epochs, make: Callable[[], Any]) -> None:
    """It makes the gradients, and learns its weights, itself."""
    weigh = make(net.trunk[2].weight)
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            weigh.backward(losses)
            optimizer.step()


class GradNorm(Way):
    """Weights learned until the weighted gradients of one shared layer have norms alike."""

    owns_backward = True
    loop = staticmethod(by_itself)

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.module: Any = self.make([p for p in self.shared if p.ndim > 1][-1], count)

    @staticmethod
    def make(parameter: nn.Parameter, count: int = TASKS) -> Any:
        """The package's object."""
        return GradNormLossWeighter(num_losses=count, grad_norm_parameters=parameter, **SETTINGS)

    def backward(self, losses: Losses, output: Tensor) -> None:
        del output
        self.module.backward(losses)


WAYS = {"gradnorm-pytorch": GradNorm}
