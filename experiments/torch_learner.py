"""A `Learner` in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.backends.torch import Balancer
from loss_balance.experiments.data import Dataset, Images, Labels
from loss_balance.experiments.training import Arrays, Run
from loss_balance.reference_models.torch import AnytimeNet

EVALUATION_BATCH = 500


class TorchLearner:
    """Network, SGD and balancer of one run, on `device`; the data stays there too."""

    def __init__(self, run: Run, data: Dataset, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = AnytimeNet(run.spec, seed=run.seed).to(self.device)
        self.balance = Balancer(run.scheme).to(self.device)
        self.optimizer = torch.optim.SGD(
            _decay_groups(self.net, run.recipe.weight_decay),
            lr=run.recipe.learning_rate,
            momentum=run.recipe.momentum,
        )
        self.data = data
        self.x = self._images(data.x_train)
        self.y = torch.from_numpy(data.y_train).to(self.device)

    def train_epoch(
        self, order: NDArray[np.int64], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        self.net.train()
        self.balance.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(self.net.spec.exits), dtype=torch.float64, device=self.device)
        for step, indices in enumerate(torch.from_numpy(order).to(self.device)):
            losses = exit_losses(self.net(self.x[indices]), self.y[indices]).mean(dim=1)
            self.optimizer.zero_grad()
            self.balance(losses).backward()
            self.optimizer.step()
            sums += losses.detach()
            if step % 10 == 0:  # not every step: reading the loss waits for the device
                on_step(step, losses[-1].item())
        return (sums / len(order)).cpu().numpy()

    @torch.no_grad()
    def evaluate(self, x: Images, y: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self.net.eval()
        images, labels = self._images(x), torch.from_numpy(y).to(self.device)
        sums = torch.zeros(2, len(self.net.spec.exits), dtype=torch.float64, device=self.device)
        for start in range(0, len(y), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            logits, targets = self.net(images[part]), labels[part]
            sums[0] += exit_losses(logits, targets).double().sum(dim=1)
            sums[1] += (torch.stack(logits).argmax(dim=2) != targets).sum(dim=1)
        loss, error = (sums / len(y)).cpu().numpy()
        return loss, error

    def loss_weights(self) -> list[float]:
        return list(self.balance.metrics().values())

    def weights(self) -> Arrays:
        return self.net.dump_weights()

    def state(self) -> Arrays:
        tensors = {
            **_prefixed("net", self.net.state_dict()),
            **_prefixed("balance", self.balance.state_dict()),
            **_prefixed("momentum", self._momenta()),
        }
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
        self.net.load_state_dict(_under("net", tensors))
        self.balance.load_state_dict(_under("balance", tensors))
        parameters = dict(self.net.named_parameters())
        for name, momentum in _under("momentum", tensors).items():
            self.optimizer.state[parameters[name]]["momentum_buffer"] = momentum.to(self.device)

    def _momenta(self) -> dict[str, Tensor]:
        return {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.net.named_parameters()
        }

    def _images(self, x: Images) -> Tensor:
        """(N, H, W, C) as published to standardised (N, C, H, W) on the device."""
        standardised = torch.from_numpy(self.data.standardise(x))
        return standardised.permute(0, 3, 1, 2).contiguous().to(self.device)


def exit_losses(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy of each exit and image, (num_exits, B), in one kernel for all exits."""
    stacked = torch.stack(logits)
    repeated = labels.expand(len(logits), -1)
    return F.cross_entropy(stacked.flatten(0, 1), repeated.flatten(), reduction="none").view(
        len(logits), -1
    )


def _decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    return [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
