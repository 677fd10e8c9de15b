"""The `Probe` of the JAX networks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from loss_balance.backends.jax import balance, fork, guidance, init
from loss_balance.experiments.data.dataset import Labels
from loss_balance.experiments.verification.probes import InputImages, Logits, Pulls
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights
from loss_balance.reference_models.jax import AnytimeNet
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Static


class JaxProbe:
    """Every method compiles what it runs, once per network structure and shape."""

    def network(self, spec: AnytimeSpec, seed: int = 0) -> AnytimeNet:
        return AnytimeNet(spec, seed)

    def trainable_size(self, spec: AnytimeSpec) -> int:
        parameters = nnx.state(AnytimeNet(spec, seed=None), nnx.Param)
        return sum(math.prod(array.shape) for array in jax.tree.leaves(parameters))

    def predict(self, net: AnytimeNet, images: InputImages) -> Logits:
        net.eval()  # type: ignore[no-untyped-call]
        return [np.asarray(logits) for logits in _predict(net, images)]

    def anytime(self, net: AnytimeNet, images: InputImages) -> Generator[NDArray[Any], Any, None]:
        net.eval()  # type: ignore[no-untyped-call]
        answers = net.anytime(jnp.asarray(images))
        kept = None
        with contextlib.suppress(StopIteration):
            while True:
                kept = yield np.asarray(answers.send(kept))

    def gradients(
        self, net: AnytimeNet, images: InputImages, labels: Labels, pulls: Pulls = None
    ) -> tuple[Logits, Weights]:
        net.train()  # type: ignore[no-untyped-call]
        answers, gradients = _gradients(net, images, labels, pulls=pulls)
        by_name = {
            _name(path): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(gradients)
        }
        in_order = {name: by_name[name] for name in net.spec.parameters()}
        return [np.asarray(logits) for logits in answers], in_order

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
        net.train()  # type: ignore[no-untyped-call]
        state, losses = init(scheme), []
        for _ in range(steps):
            found, state = _train_step(net, state, images, labels, learning_rate, scheme=scheme)
            losses.append(found)
        return np.asarray(jnp.stack(losses), np.float64)


def _losses(
    net: AnytimeNet, images: Any, labels: Any, fork: Any = None
) -> tuple[jax.Array, list[jax.Array]]:
    """(mean cross-entropy of each exit, logits)."""
    answers = net(images, fork)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    return jnp.stack([cross_entropy(logits, labels).mean() for logits in answers]), answers


@nnx.jit
def _predict(net: AnytimeNet, images: Any) -> list[jax.Array]:
    return net(images)


def _differentiate(net: AnytimeNet, images: Any, labels: Any, *, pulls: Pulls) -> Any:
    weights, strength = ((1.0,) * len(net.spec.exits), 0.0) if pulls is None else pulls
    scheme = Static(weights)
    state = init(scheme)

    def total(net: AnytimeNet) -> Any:
        at = None if pulls is None else partial(fork, state=state, scheme=scheme)
        losses, answers = _losses(net, images, labels, at)
        return losses.sum() + guidance(answers, state, scheme, strength), answers

    gradients, answers = nnx.grad(total, has_aux=True)(net)
    return answers, gradients


_gradients: Any = nnx.jit(_differentiate, static_argnames="pulls")


def _step(
    net: AnytimeNet, state: Any, images: Any, labels: Any, rate: Any, *, scheme: Scheme
) -> Any:
    def total(net: AnytimeNet) -> Any:
        losses, _ = _losses(net, images, labels)
        weighted, new = balance(losses, state, scheme)
        return weighted, (losses, new)

    gradients, kept = nnx.grad(total, has_aux=True)(net)
    parameters = nnx.state(net, nnx.Param)
    nnx.update(net, jax.tree.map(lambda p, g: p - rate * g, parameters, gradients))
    return kept


_train_step: Any = nnx.jit(_step, static_argnames="scheme")


def _name(path: tuple[Any, ...]) -> str:
    """An array's name, from where it is in the module: ("units", 3, "conv1", "kernel")."""
    part, *rest = path
    if part in ("units", "exits"):
        part = {"units": "unit", "exits": "exit"}[part] + str(rest.pop(0))
    return ".".join((part, *rest))
