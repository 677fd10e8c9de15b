"""The `Probe` of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance.backends.torch import Balancer
from loss_balance.experiments.data.dataset import Labels
from loss_balance.experiments.verification.probes import InputImages, Logits, Pulls
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights
from loss_balance.reference_models.torch import AnytimeNet, native, to_array
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Static


class TorchProbe:
    """Eager, as is the habit in PyTorch."""

    def network(self, spec: AnytimeSpec, seed: int = 0) -> AnytimeNet:
        return AnytimeNet(spec, seed)

    def trainable_size(self, spec: AnytimeSpec) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in AnytimeNet(spec).parameters() if p.requires_grad)

    @torch.no_grad()
    def predict(self, net: AnytimeNet, images: InputImages) -> Logits:
        return [logits.numpy() for logits in net.eval()(native(images))]

    @torch.no_grad()
    def anytime(self, net: AnytimeNet, images: InputImages) -> Iterator[NDArray[Any]]:
        answers = net.eval().anytime(native(images))
        kept = None
        try:
            while True:
                kept = yield answers.send(kept).numpy()
        except StopIteration:
            return

    def gradients(
        self, net: AnytimeNet, images: InputImages, labels: Labels, pulls: Pulls = None
    ) -> tuple[Logits, Weights]:
        weights, strength = ((1.0,) * len(net.spec.exits), 0.0) if pulls is None else pulls
        balance = Balancer(Static(weights), equilibrium=pulls is not None)
        logits = net.train()(native(images), balance.fork if pulls else None)
        net.zero_grad()
        total = balance(_losses(logits, labels)) + balance.guidance(logits, strength)
        total.backward()
        grads = {name: tensor.grad for name, tensor in net.named_weights().items()}
        gradients = {name: to_array(grad) for name, grad in grads.items() if grad is not None}
        return [answer.detach().numpy() for answer in logits], gradients

    def train(
        self,
        net: AnytimeNet,
        scheme: Scheme,
        images: InputImages,
        labels: Labels,
        *,
        steps: int,
        learning_rate: float,
    ) -> NDArray[np.float64]:
        net.train()
        balance = Balancer(scheme)
        optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
        history = []
        for _ in range(steps):
            losses = _losses(net(native(images)), labels)
            optimizer.zero_grad()
            balance(losses).backward()
            optimizer.step()
            history.append(losses.detach().double().numpy())
        return np.stack(history)


def _losses(logits: list[Tensor], labels: Labels) -> Tensor:
    targets = torch.from_numpy(labels)
    return torch.stack([F.cross_entropy(answer, targets) for answer in logits])
