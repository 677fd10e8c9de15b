"""Where an exit branches off the trunk: forward the identity, backward a weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from loss_balance.backends.interface import check_names, check_vector, exit_index
from loss_balance.backends.jax.functions import own_state
from loss_balance.equilibrium import STRENGTH, TEMPERATURE, check_pull, shares, strength_at
from loss_balance.equilibrium import guidance as guidance_of_exits
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.averaging import Schedule
from loss_balance.schemes.base import AnyState, Scheme


def fork(
    features: Any,
    index: int | str,
    state: AnyState,
    scheme: Scheme | int,
    *,
    names: Sequence[str] | None = None,
    priorities: Any = None,
    probe: Array | None = None,
    pull: float = 1.0,
) -> tuple[Any, Any]:
    """(what exit `index` reads, what goes on to deeper ones); both are `features`.

    ::

        branch, x = fork(x, i, state, scheme)
        logits.append(head(branch))
        ...
        total, state = balance(losses, state, scheme, equilibrium=True)

    Backward the gradients from both are mixed by the weights of `state`, the one before this step's
    `balance`, so that what comes before has the weighted mean of the gradients of all losses from
    this exit on (`loss_balance.equilibrium`). To be called for every exit, the last one too, in the
    order of the losses. Reverse-mode differentiation alone.

    Args:
        features: any pytree of arrays, such as a list of maps.
        index: of the exit's loss, from 0, or its name.
        state: what `init` or the last step's `balance` returned.
        scheme: as in `balance`.
        names: as in `balance`.
        priorities: as in `balance`, which does not take them in equilibrium.
        probe: shape (num_losses,), zeros to differentiate by: their gradient becomes the norms of
            the exits' gradients, for `norms` of the next `balance` (`GradientNorm`).
        pull: the trunk's shares are of the weights to this power: 1 as they are, 0 even ones (the
            gradient equilibrium of Li et al. 2019), between them early exits pull more.

    Raises:
        ValueError: there is no such exit, or the state is of another scheme.
    """
    scheme = as_scheme(scheme)
    place = exit_index(index, check_names(names, scheme.num_losses), scheme.num_losses)
    weights = lax.stop_gradient(own_state(state, scheme).weights)
    if priorities is not None:
        priorities = jnp.asarray(priorities, weights.dtype)
        check_vector("priorities", priorities.shape, scheme.num_losses)
        priorities = lax.stop_gradient(priorities)
    own, deeper = shares(weights, jnp, check_pull(pull), priorities)
    return mixed(features, own[place], deeper[place], None if probe is None else probe[place])


def mixed(features: Any, own: Array, deeper: Array, probe: Array | None = None) -> tuple[Any, Any]:
    """(what the exit reads, what goes on), of any pytree; the others have shape ()."""
    leaves, structure = jax.tree.flatten(features)
    floats = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]
    branch, onward = _mixed(
        [x for x, is_float in zip(leaves, floats, strict=True) if is_float], own, deeper, probe
    )
    sides = []
    for side in (iter(branch), iter(onward)):
        both = zip(leaves, floats, strict=True)
        sides.append(jax.tree.unflatten(structure, [next(side) if f else x for x, f in both]))
    return sides[0], sides[1]


@jax.custom_vjp
def _mixed(
    maps: list[Array], own: Array, deeper: Array, probe: Array | None
) -> tuple[list[Array], list[Array]]:
    del own, deeper, probe
    return maps, maps


def _forward(
    maps: list[Array], own: Array, deeper: Array, probe: Array | None
) -> tuple[tuple[list[Array], list[Array]], Any]:
    return (maps, maps), (own, deeper, probe)


def _backward(kept: Any, gradients: tuple[list[Array], list[Array]]) -> tuple[Any, ...]:
    own, deeper, probe = kept

    def mean(branch: Array, onward: Array) -> Array:
        wide = jnp.promote_types(branch.dtype, own.dtype)
        found = own.astype(wide) * branch.astype(wide) + deeper.astype(wide) * onward.astype(wide)
        return jnp.asarray(found, branch.dtype)

    branch, onward = gradients
    means = [mean(*pair) for pair in zip(branch, onward, strict=True)]
    norm = None
    if probe is not None:
        squares = [jnp.sum(jnp.square(jnp.abs(g).astype(probe.dtype))) for g in branch]
        norm = jnp.sqrt(sum(squares, jnp.zeros_like(probe)))
    return means, jnp.zeros_like(own), jnp.zeros_like(deeper), norm


_mixed.defvjp(_forward, _backward)


def guidance(
    logits: Sequence[Array] | Array,
    state: AnyState,
    scheme: Scheme | int,
    strength: float | Schedule = STRENGTH,
    temperature: float = TEMPERATURE,
) -> Array:
    """What to add to the total so that early exits learn from the last one, a scalar.

    The sum of `loss_balance.equilibrium.guidance` over the exits, in float32 or wider.

    Args:
        logits: of each exit, (..., classes); a sequence or stacked.
        state: the one before this step's `balance`.
        scheme: as in `balance`.
        strength: g, a number or a schedule of the state's updates, of (step, xp, dtype):
            `LinearSchedule(0.0, 1.0, steps)` teaches late, when the last exit knows more.
        temperature: tau.
    """
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits]
    wide[-1] = lax.stop_gradient(wide[-1])
    dtype = wide[-1].dtype
    weights = lax.stop_gradient(own_state(state, as_scheme(scheme)).weights).astype(dtype)
    share = strength_at(strength, state.step, jnp, dtype)
    return jnp.sum(guidance_of_exits(wide, weights, share, temperature, jnp))
