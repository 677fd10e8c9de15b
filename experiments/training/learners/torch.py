"""A `Learner` in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance import LinearSchedule
from loss_balance.backends.torch import Balancer
from loss_balance.experiments.data.augment import (
    Constants,
    Draws,
    augmented,
    constants,
    standardised,
)
from loss_balance.experiments.data.dataset import Arrays
from loss_balance.experiments.data.sources import Dataset, Images, Labels
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.crew import ALONE, Crew
from loss_balance.experiments.training.learners.interface import prefixed, under
from loss_balance.experiments.training.learners.torch_crew import (
    TorchCrew,
    device_of,
    norms_of_all,
    shared,
)
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.own import network
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.reference_models.torch.net import Fork, placed_as, whole


def use_one_thread() -> None:
    """One thread for all runs of this process."""
    torch.set_num_threads(1)


class TorchLearner:
    """Network, SGD and balancer of one run; the training split lives on the device too."""

    def __init__(self, run: Run, data: Dataset, crew: Crew = ALONE) -> None:
        self.crew: Crew = crew
        self.spec: NetSpec = run.spec
        # Not by the rank, which on several machines is no number of a GPU.
        self.device: torch.device = (
            crew.device if isinstance(crew, TorchCrew) else device_of(run.engine.device)
        )
        self.autocast: bool = run.engine.precision == "bfloat16"
        self.net: Any = network(run.spec, "torch", run.seed).to(self.device)
        if run.engine.strategy != "fsdp":  # which takes contiguous parameters alone
            self.net.to(memory_format=torch.channels_last)
        self.shared: nn.Module = shared(self.net, run.engine, crew)
        self.coupling: Coupling = run.coupling
        self.strength: float | LinearSchedule = run.coupling.strength(run.steps(len(data.y_train)))
        self.balance: Balancer = Balancer(
            run.scheme, equilibrium=run.coupling.equilibrium, pull=run.coupling.pull
        ).to(self.device)
        # The norms of the exits' gradients in the last step, and where the next ones go.
        self.norms: Tensor | None = None
        self.probe: Tensor | None = None
        if run.scheme.observes == "gradients":
            self.norms = torch.zeros(len(run.spec.exits), device=self.device)
            self.probe = torch.zeros_like(self.norms, requires_grad=True)
        self.optimizer: torch.optim.SGD = torch.optim.SGD(
            _decay_groups(self.net, run.recipe.weight_decay),
            lr=run.recipe.learning_rate,
            momentum=run.recipe.momentum,
        )
        prepared = constants(data.augmentation, data.input_shape, data.mean, data.std)
        self.constants: Constants = Constants(*map(self._on_device, prepared))
        self.resident: tuple[Tensor, Tensor] | None = None
        if feed.resident(data):
            self.resident = self._on_device(data.x_train), self._on_device(data.y_train)
        self._losses = (
            torch.compile(self._step_losses, fullgraph=True)
            if run.engine.compiled
            else self._step_losses
        )

    def train_epoch(
        self, batches: Iterable[feed.Batch], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        self.net.train()
        self.balance.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(self.spec.exits), dtype=torch.float64, device=self.device)
        step = -1
        for step, batch in enumerate(batches):
            losses = self._train_step(batch)
            sums += losses
            if step % 10 == 0:  # not every step: reading the loss waits for the device
                on_step(step, losses[-1].item())
        return self.crew.mean((sums / (step + 1)).cpu().numpy())

    def _train_step(self, batch: feed.Batch) -> Tensor:
        """One step of SGD; the loss of each exit, (num_exits,), detached."""
        losses, taught = self._losses(*self._inputs(batch))
        self.optimizer.zero_grad()
        total = self.balance(losses, norms=self.norms)
        (total if taught is None else total + taught).backward()
        self.optimizer.step()
        if self.probe is not None:
            self.norms, self.probe.grad = self._norms_of_all(self.probe.grad), None
        return losses.detach()

    def _norms_of_all(self, norms: Any) -> Tensor:
        """Of the gradients of the whole batch, of which each process has a part."""
        return norms if self.crew.size == 1 else norms_of_all(norms)

    def _inputs(self, batch: feed.Batch) -> tuple[Tensor, Tensor, Tensor, Draws]:
        """(images, labels, index, draws) on the device."""
        if self.resident is None:
            images, labels = self._on_device(batch.images), self._on_device(batch.labels)
        else:
            images, labels = self.resident
        draws = Draws(*map(self._on_device, batch.draws))
        return images, labels, self._on_device(batch.chosen), draws

    def _step_losses(
        self, images: Tensor, labels: Tensor, index: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        """(mean cross-entropy of each exit over the batch, (num_exits,); the guidance)."""
        x = augmented(images, index, draws, self.constants, torch)
        fork = partial(self.balance.fork, probe=self.probe) if self.coupling.equilibrium else None
        logits = self._logits(x, fork)
        losses = exit_losses(logits, labels[index]).mean(dim=1)
        if not self.coupling.guidance:
            return losses, None
        return losses, self.balance.guidance(logits, self.strength, self.coupling.temperature)

    def _logits(self, x: Tensor, fork: Fork | None = None) -> Tensor:
        """(num_exits, B, num_classes) of standardised images (B, H, W, C)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return torch.stack(self.shared(x.permute(0, 3, 1, 2), fork)).float()

    @torch.no_grad()
    def evaluate(
        self, batches: Iterable[tuple[Images, Labels]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self.net.eval()
        sums = torch.zeros(2, len(self.spec.exits), dtype=torch.float64, device=self.device)
        count = 0
        for images, labels in batches:
            logits = self._logits(standardised(self._on_device(images), self.constants, torch))
            targets = self._on_device(labels)
            sums[0] += exit_losses(logits, targets).double().sum(dim=1)
            sums[1] += (logits.argmax(dim=2) != targets).sum(dim=1)
            count += len(labels)
        means = self.crew.mean(sums.cpu().numpy())
        loss, error = means / self.crew.mean(np.array(float(count)))
        return loss, error

    def loss_weights(self) -> list[float]:
        weights: list[float] = self.balance.weights.tolist()
        return weights

    def weights(self) -> Arrays:
        weights: Arrays = self.net.dump_weights()
        return weights

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.net.load_weights(weights)

    def state(self) -> Arrays:
        """`net`, `momentum` and `balance`, the first two under the spec's names."""
        momenta = {
            name: whole(self.optimizer.state[parameter]["momentum_buffer"]).cpu().numpy().copy()
            for name, parameter in self._parameters().items()
        }
        return {
            **prefixed("net", self.weights()),
            **prefixed("momentum", momenta),
            **prefixed("balance", self.balance.export_state()),
            **({} if self.norms is None else {"norms": self.norms.cpu().numpy().copy()}),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.net.load_weights(under("net", state))
        self.balance.import_state(under("balance", state))
        if self.norms is not None:
            self.norms = self._on_device(state["norms"].copy())
        momenta = under("momentum", state)
        for name, parameter in self._parameters().items():
            if momenta[name].shape != tuple(parameter.shape):
                raise ValueError(f"the momentum of {name} has shape {momenta[name].shape}")
            momentum = placed_as(parameter, self._on_device(momenta[name].copy()))
            self.optimizer.state[parameter]["momentum_buffer"] = momentum

    def _parameters(self) -> dict[str, Tensor]:
        named = self.net.named_weights()
        return {name: named[name] for name in self.spec.parameters()}

    def _on_device(self, array: NDArray[Any] | None) -> Tensor:
        return torch.as_tensor(array).to(self.device, non_blocking=True)


def exit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each exit and image, (num_exits, B), in one kernel for all exits."""
    exits = len(logits)
    repeated = labels.expand(exits, -1).flatten()
    return F.cross_entropy(logits.flatten(0, 1), repeated, reduction="none").view(exits, -1)


def _decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    return [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
