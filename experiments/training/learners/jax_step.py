"""What `JaxLearner` compiles: a training step and an evaluation, pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding

from loss_balance.backends.jax import balance, fork, guidance
from loss_balance.experiments.data.augment import Constants, augmented, standardised
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.reference_models.jax import AnytimeNet
from loss_balance.reference_models.jax.net import Fork
from loss_balance.schemes.base import AnyState, Scheme


class Carried(NamedTuple):
    """What a step changes, in the same buffers.

    Lists, not Flax's states: those take as long to pass to a compiled function as a small step.
    """

    parameters: list[Array]
    statistics: list[Array]
    optimizer: Any
    balance: AnyState
    norms: Array | None = None  # of the exits' gradients in the last step, where they are followed


@dataclass(frozen=True)
class Structure:
    """A network without its arrays, equal for equal networks."""

    graph: Any
    parameters: Any
    statistics: Any

    def net(self, parameters: list[Array], statistics: list[Array]) -> AnytimeNet:
        """The network with these arrays, in training mode."""
        states = (self.parameters, parameters), (self.statistics, statistics)
        net: AnytimeNet = nnx.merge(self.graph, *(jax.tree.unflatten(*state) for state in states))
        return net


SUM = Coupling()


def exit_losses(logits: Array, labels: Array) -> Array:
    """Cross-entropy of each exit and image, (num_exits, B), of logits (num_exits, B, classes)."""
    repeated = jnp.broadcast_to(labels, logits.shape[:2])
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(logits, repeated)
    return losses


@lru_cache(maxsize=4)
def compiled(
    structure: Structure,
    scheme: Scheme,
    momentum: float,
    weight_decay: float,
    coupling: Coupling = SUM,
    steps: int = 1,
    whole: NamedSharding | None = None,
) -> tuple[Callable[..., tuple[Carried, Array]], Callable[..., tuple[Array, Array]]]:
    """(training step, evaluation), the same for runs that differ in seed or learning rate alone.

    `steps` are those of the whole training, over which guidance may rise. `whole` is how results
    lie on several devices: as what the step was given, or a second one would compile it anew.
    """
    strength = coupling.strength(steps)
    optimizer = sgd(momentum, weight_decay)

    @partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def step(
        carried: Carried,
        constants: Constants,
        images: Array,
        labels: Array,
        index: Array,
        draws: Any,
        rate: Any,
    ) -> tuple[Carried, Array]:
        x = augmented(images, index, draws, constants, jnp)

        def weighted(parameters: list[Array], probe: Array | None) -> Any:
            net = structure.net(parameters, carried.statistics)
            state, equilibrium = carried.balance, coupling.equilibrium
            at = partial(fork, state=state, scheme=scheme, probe=probe, pull=coupling.pull)
            logits = _logits(net, x, at if equilibrium else None)
            losses = exit_losses(logits, labels[index]).mean(axis=1)
            total, balanced = balance(
                losses, state, scheme, equilibrium=equilibrium, norms=carried.norms
            )
            if coupling.guidance:
                total += guidance(logits, state, scheme, strength, coupling.temperature)
            changed = jax.tree.leaves(nnx.state(net, nnx.Not(nnx.Param)))
            return total, (losses, changed, balanced)

        probe = None if carried.norms is None else jnp.zeros_like(carried.norms)
        (gradients, norms), (losses, statistics, balanced) = jax.grad(
            weighted, argnums=(0, 1), has_aux=True
        )(carried.parameters, probe)
        updates, state = optimizer.update(gradients, carried.optimizer, carried.parameters)
        parameters = jax.tree.map(lambda p, u: p - rate * u, carried.parameters, updates)
        return Carried(parameters, statistics, state, balanced, norms), losses

    @partial(jax.jit, out_shardings=whole)
    def evaluate(
        parameters: list[Array],
        statistics: list[Array],
        constants: Constants,
        images: Array,
        labels: Array,
    ) -> tuple[Array, Array]:
        net = structure.net(parameters, statistics)
        net.eval()  # type: ignore[no-untyped-call]
        logits = _logits(net, standardised(images, constants, jnp))
        wrong = logits.argmax(axis=2) != labels
        return exit_losses(logits, labels).sum(axis=1), wrong.sum(axis=1)

    return step, evaluate


def _logits(net: AnytimeNet, x: Array, fork: Fork | None = None) -> Array:
    """(num_exits, B, num_classes) in float32, of standardised images (B, H, W, C)."""
    return jnp.stack(net(x, fork)).astype(jnp.float32)


def sgd(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """What to subtract, times the learning rate; weight decay is on kernels alone."""
    decayed = optax.add_decayed_weights(weight_decay, mask=lambda ps: [p.ndim > 1 for p in ps])
    return optax.chain(decayed, optax.trace(momentum))


def taken_apart(net: AnytimeNet) -> tuple[Structure, list[Array], list[Array]]:
    """(structure, parameters, running statistics and what else changes, as random counters)."""
    graph, *states = nnx.split(net, nnx.Param, ...)
    (parameters, first), (statistics, second) = map(jax.tree.flatten, states)
    return Structure(graph, first, second), parameters, statistics
