"""What the tests of the page's PyTorch blocks share: what happened, and what should have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.docs.loop_page import begin

from loss_balance.experiments.verification.oracle import Oracle


def standing(examples: int = 128, seed: int = 0) -> Any:
    """The page's set-up, with a network that no step moves: its losses are known beforehand."""
    torch.manual_seed(seed)
    module = begin("torch")
    data = torch.utils.data.TensorDataset(torch.randn(examples, 8), torch.randn(examples, 2))
    module.batches = torch.utils.data.DataLoader(data, batch_size=16)
    module.optimizer = torch.optim.SGD(module.net.parameters(), lr=0.0)
    return module


def steps_of(optimizer: torch.optim.Optimizer) -> list[None]:
    """Grows by one with every step of the optimizer."""
    steps: list[None] = []
    optimizer.register_step_post_hook(lambda *_: steps.append(None))
    return steps


def losses(module: Any) -> list[list[float]]:
    """Those of every batch."""
    net = torch.nn.Linear(8, 2)
    net.load_state_dict({name: x.detach() for name, x in module.net.state_dict().items()})
    return [module.losses_of(net, batch).tolist() for batch in module.batches]


def recorded(module: Any) -> list[list[float]]:
    """Fills with the losses of every micro-batch, in the order in which they are asked for."""
    seen: list[list[float]] = []

    def losses_of(net: Any, batch: Any, original: Any = module.losses_of) -> torch.Tensor:
        found: torch.Tensor = original(net, batch)
        seen.append(found.tolist())
        return found

    module.losses_of = losses_of
    return seen


def recording(balancer: Any) -> tuple[Any, list[tuple[float, list[float], dict[str, Any]]]]:
    """A class like `balancer` and a list of its calls: total, weights then, options."""
    calls: list[tuple[float, list[float], dict[str, Any]]] = []

    class Recording(balancer):  # type: ignore[misc]
        def forward(self, losses: Any, *args: Any, **options: Any) -> torch.Tensor:
            total: torch.Tensor = super().forward(losses, *args, **options)
            calls.append((total.item(), self.weights.tolist(), options))
            return total

    return Recording, calls


def undivided(losses: list[list[float]], n: int) -> list[list[float]]:
    """The losses of batches n times as large, the last one smaller if they do not divide."""
    groups = [losses[i : i + n] for i in range(0, len(losses), n)]
    return [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]


def assert_saw(balance: Any, losses: list[list[float]], **options: Any) -> None:
    """The balancer's state is that after these losses, one update each."""
    oracle = Oracle(2, **options)
    for one in losses:
        weights = oracle.update(one)
    state = balance.export_state()
    assert state["step"] == len(losses)
    assert state["average"].tolist() == pytest.approx(oracle.average, rel=1e-5)
    assert state["weights"].tolist() == pytest.approx(weights, rel=1e-5)
    assert not state["pending"].any()
