"""Where an exit branches off the trunk: forward the identity, backward a weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from loss_balance.backends.interface import check_names, check_vector, exit_index
from loss_balance.backends.jax.functions import own_state
from loss_balance.equilibrium import STRENGTH, TEMPERATURE, shares
from loss_balance.equilibrium import guidance as guidance_of_exits
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.base import AnyState, Scheme


def fork(
    features: Any,
    index: int | str,
    state: AnyState,
    scheme: Scheme | int,
    *,
    names: Sequence[str] | None = None,
    priorities: Any = None,
) -> tuple[Any, Any]:
    """(what exit `index` reads, what goes on to deeper ones); both are `features`.

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

    Raises:
        ValueError: there is no such exit, or the state is of another scheme.
    """
    scheme = as_scheme(scheme)
    place = exit_index(index, check_names(names, scheme.num_losses), scheme.num_losses)
    weights = lax.stop_gradient(own_state(state, scheme).weights)
    if priorities is not None:
        priorities = jnp.asarray(priorities, weights.dtype)
        check_vector("priorities", priorities.shape, scheme.num_losses)
        weights = weights * lax.stop_gradient(priorities)
    own, deeper = shares(weights, jnp)
    return mixed(features, own[place], deeper[place])


def mixed(features: Any, own: Array, deeper: Array) -> tuple[Any, Any]:
    """(what the exit reads, what goes on), of any pytree; `own` and `deeper` have shape ()."""
    leaves, structure = jax.tree.flatten(features)
    pairs = [
        _mixed(x, own, deeper) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else (x, x)
        for x in leaves
    ]
    branch, onward = ([pair[side] for pair in pairs] for side in (0, 1))
    return structure.unflatten(branch), structure.unflatten(onward)


@jax.custom_vjp
def _mixed(x: Array, own: Array, deeper: Array) -> tuple[Array, Array]:
    del own, deeper
    return x, x


def _forward(x: Array, own: Array, deeper: Array) -> tuple[tuple[Array, Array], Any]:
    return (x, x), (own, deeper)


def _backward(kept: tuple[Array, Array], gradients: tuple[Array, Array]) -> tuple[Any, ...]:
    (own, deeper), (branch, onward) = kept, gradients
    wide = jnp.promote_types(branch.dtype, own.dtype)
    mean = own.astype(wide) * branch.astype(wide) + deeper.astype(wide) * onward.astype(wide)
    return mean.astype(branch.dtype), jnp.zeros_like(own), jnp.zeros_like(deeper)


_mixed.defvjp(_forward, _backward)


def guidance(
    logits: Sequence[Array] | Array,
    state: AnyState,
    scheme: Scheme | int,
    strength: float = STRENGTH,
    temperature: float = TEMPERATURE,
) -> Array:
    """What to add to the total so that early exits learn from the last one, a scalar.

    The sum of `loss_balance.equilibrium.guidance` over the exits, in float32 or wider.

    Args:
        logits: of each exit, (..., classes); a sequence or stacked.
        state: the one before this step's `balance`.
        scheme: as in `balance`.
        strength: g.
        temperature: tau.
    """
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits]
    wide[-1] = lax.stop_gradient(wide[-1])
    weights = lax.stop_gradient(own_state(state, as_scheme(scheme)).weights).astype(wide[-1].dtype)
    return jnp.sum(guidance_of_exits(wide, weights, strength, temperature, jnp))
