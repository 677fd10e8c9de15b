"""The package's PyTorch learner, with a step that can do all that the study compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.beyond.variants import Variant
from loss_balance.backends.torch.forks import mixed
from loss_balance.equilibrium import TEMPERATURE, shares
from loss_balance.experiments.data.augment import augmented
from loss_balance.experiments.data.sources import Dataset
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.learners.torch import TorchLearner, exit_losses
from loss_balance.experiments.training.loop import Run


class StudyLearner(TorchLearner):
    """A learner of one variant."""

    def __init__(self, run: Run, data: Dataset, variant: Variant, compiled: bool = False) -> None:
        super().__init__(run, data)
        self.variant = variant
        # Hooks that read norms break the graph; the compiled net has this one's parameters.
        compiled = compiled and variant.observes == "losses"
        self.trained = torch.compile(self.net, dynamic=False) if compiled else self.net
        self.steps = run.steps(len(data.y_train))
        self.step = 0
        self.norms: Tensor | None = None  # of this step
        self.last: Tensor | None = None  # of the one before

    def _train_step(self, batch: feed.Batch) -> Tensor:
        images, labels, index, draws = self._inputs(batch)
        x = augmented(images, index, draws, self.constants, torch)
        weights = self.balance.weights.clone()
        if self.step < self.variant.backbone * self.steps:
            weights = torch.zeros_like(weights)
            weights[-1] = 1.0
        at = self._fork(weights)
        logits = torch.stack(self.trained(x.permute(0, 3, 1, 2), at))
        losses = exit_losses(logits, labels[index]).mean(dim=1)
        total = self._total(losses, weights) + self._guidance(logits, weights)
        self.optimizer.zero_grad()
        total.backward()
        self.last = self.norms
        self.optimizer.step()
        self.step += 1
        return losses.detach()

    def _fork(self, weights: Tensor) -> Callable[[Any, int], tuple[Any, Any]] | None:
        if self.variant.observes == "norms":
            self.norms = torch.full_like(weights, torch.nan)
        elif self.variant.trunk == "sum":
            return None
        own, deeper = shares(weights**self.variant.pull, torch)

        def at(features: Any, i: int) -> tuple[Any, Any]:
            if self.variant.trunk == "sum":
                branch, onward = _same(features), features
            elif self.variant.trunk == "weighted":
                branch, onward = _scaled(features, weights[i]), features
            else:
                branch, onward = mixed(features, own[i], deeper[i])
            if self.variant.observes == "norms":
                read = branch if isinstance(branch, Tensor) else branch[-1]
                read.register_hook(lambda gradient: self._note(gradient, i, weights))
            return branch, onward

        return at

    def _note(self, gradient: Tensor, i: int, weights: Tensor) -> None:
        """Notes the norm of an exit's gradient, without the weight that a sum gave it."""
        assert self.norms is not None
        weight = weights[i] if self.variant.trunk == "sum" else 1.0
        self.norms[i] = gradient.norm() / weight

    def _total(self, losses: Tensor, before: Tensor) -> Tensor:
        if self.variant.observes == "norms":
            with torch.no_grad():
                if self.last is not None:
                    self.balance(self.last)
            weighted = (losses * before).sum()
        else:
            weighted = self.balance(losses)  # moves the averages
        if self.step < self.variant.backbone * self.steps:
            return (losses * before).sum()
        if self.variant.mean:
            return weighted / self.balance.weights.sum()
        if self.variant.mixed:
            share = self._strength() * (1.0 - before)
            share[-1] = 0.0
            return ((1.0 - share) * losses).sum()
        return weighted if self.variant.trunk == "sum" else losses.sum()

    def _strength(self) -> float:
        """Of the guidance, now."""
        done = self.step / self.steps
        ramps = {"none": 1.0, "up": done, "down": 1.0 - done, "half": min(1.0, 2.0 * done)}
        ramp = ramps[self.variant.ramp]
        return self.variant.strength * ramp

    def _guidance(self, logits: Tensor, weights: Tensor) -> Tensor | float:
        variant = self.variant
        if not variant.strength:
            return 0.0
        pupils = logits[:-1] / TEMPERATURE
        taught = logits[1:] if variant.teacher == "next" else logits[-1:].expand_as(pupils)
        apart = F.kl_div(
            pupils.log_softmax(2),
            (taught.detach() / TEMPERATURE).log_softmax(2),
            reduction="none",
            log_target=True,
        )
        share = 1.0 - weights[:-1] if variant.share else torch.ones_like(weights[:-1])
        return self._strength() * TEMPERATURE**2 * (share * apart.sum(2).mean(1)).sum()


def _same(features: Any) -> Any:
    """What a head reads, apart from what goes on."""
    if isinstance(features, Tensor):
        return features.view_as(features)
    return type(features)(_same(x) for x in features)


def _scaled(features: Any, weight: Tensor) -> Any:
    """What a head reads, whose gradient into the trunk is multiplied by `weight`."""
    if isinstance(features, Tensor):
        return mixed(features, weight, 1.0 - weight)[0]
    return type(features)(_scaled(x, weight) for x in features)
