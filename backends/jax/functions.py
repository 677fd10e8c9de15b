"""AdaLoss for JAX: pure functions over a `State`.

state = init(3)
total, state = balance([loss1, loss2, loss3], state, 3)  # inside jit, grad, scan, shard_map
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from loss_balance.backends import state as states
from loss_balance.backends.fields import impossible
from loss_balance.backends.identity import adopted, exported, fixed_weights
from loss_balance.backends.interface import (
    check_equilibrium,
    check_names,
    check_observed,
    check_scalars,
    check_vector,
    in_order,
    negative,
)
from loss_balance.backends.jax.replicas import check_copies
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.adaptive import UncertaintyState, WindowState
from loss_balance.schemes.averaging import WarmState
from loss_balance.schemes.base import AnyState, Scheme, State
from loss_balance.schemes.clock import move, note, settle
from loss_balance.schemes.means import RelativeState

KINDS = (State, WarmState, RelativeState, UncertaintyState, WindowState)
for _kind in KINDS:  # so that jax.export takes them
    jax.export.register_namedtuple_serialization(
        _kind, serialized_name=f"loss_balance.{_kind.__name__}"
    )


def init(scheme: Scheme | int, dtype: Any = jnp.float32) -> AnyState:
    """The state before the first step: a pytree of arrays, floats in `dtype`.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        dtype: of the averages and weights, float32 or float64, whatever the losses' dtype.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):  # the mean of a narrower one stalls
        raise ValueError(f"the state's dtype must be float32 or float64, got {jnp.dtype(dtype)}")
    return as_scheme(scheme).init(jnp, dtype)


def balance(
    losses: Any,
    state: AnyState,
    scheme: Scheme | int,
    axis_name: Hashable | None = None,
    *,
    names: Sequence[str] | None = None,
    mask: Any = None,
    priorities: Any = None,
    update: Any = True,
    training: Any = True,
    equilibrium: bool = False,
    norms: Any = None,
) -> tuple[Array, AnyState]:
    """The weighted sum, a scalar in the losses' dtype, and the next state.

    Pure: it works under `jit` (close over `scheme` or make it static: it is hashable), `grad` with
    `has_aux`, `vmap`, `lax.scan` and `shard_map`. No gradient flows through the weights or into the
    state. Compiled, it never waits for the device; an eager call looks at the state and, at step 0,
    the losses. A state inside a model is no parameter: keep it from weight decay, with
    `optax.masked` say.

    With `axis_name` the averages follow the mean loss over all replicas that have it (one
    all-reduce), so every replica holds the same state; the total stays the replica's own. Without
    it each device of a `shard_map(check_vma=False)` goes on with a state of its own, in an array
    that calls itself replicated: `export_state` and `metrics` refuse that one. In `shard_map`
    differentiate `lax.pmean(total, axis_name)`: with its default `check_vma` the gradient of a
    replicated parameter is summed over the replicas already, and a `pmean` of the gradients would
    leave it so.

    Args:
        losses: a vector of shape (num_losses,), which is the fast path, any pytree of scalars in
            JAX's own order, which sorts the keys of a dict ("exit10" before "exit2"): give `names`
            where the order matters; or another iterable. None or a number 0 is a loss that is
            absent in this step; if all are, the total is 0.
        state: what `init` or the previous call returned.
        scheme: as in `init`.
        axis_name: of the mapped axis or axes whose replicas share one state.
        names: the order of a mapping's entries; those of a mapping in a mapping are "outer/inner".
        mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN, and
            its gradient are then left out. A NaN that arises before, as in a mean over no elements,
            still has a NaN for its gradient: divide by `jnp.maximum(count, 1)`.
        priorities: shape (num_losses,), >= 0, may be traced: factors of the losses, multiplied
            with the weights after these were computed from the losses as they are. A coefficient
            that a loss is multiplied by beforehand would be undone by the balance; and to favour
            the last loss within the balance there is AdaLoss's `final_weight`.
        update: a bool, may be traced. False only notes the losses, for the mean that the next
            update takes, as many micro-batches make one step of the optimiser; the weights stand
            still.
        training: False leaves the state as it is and looks at nothing, say where a line search
            evaluates a loss again. Static under `jit`.
        equilibrium: the weights act on the trunk's gradient, in `fork`, in place of the total,
            which is the plain sum of the losses.
        norms: shape (num_losses,), for `GradientNorm` and its like: the gradient of the probe that
            the forks of the last step were given, zeros where there is none.

    Raises:
        ValueError: wrong count, shape or names; a state of another scheme; if eager, a state that
            cannot be, and in the first call a negative loss if the scheme takes none.
    """
    scheme = as_scheme(scheme)
    count = scheme.num_losses
    state = own_state(state, scheme)
    vector, present = _gather(losses, check_names(names, count), mask, state)
    if isinstance(training, jax.core.Tracer):
        raise ValueError("training must be a bool, static under jit, got a traced value")
    check_equilibrium(equilibrium, priorities)
    if priorities is not None:
        priorities = jnp.asarray(priorities, state.weights.dtype)
        check_vector("priorities", priorities.shape, count)
    if training or norms is not None:
        check_observed(scheme, norms, equilibrium=equilibrium)
    observed, state = lax.stop_gradient((vector if norms is None else jnp.asarray(norms), state))
    check_vector("norms", observed.shape, count)
    _look(observed, state, scheme)
    if training:
        observed = observed.astype(state.average.dtype)
        with jax.numpy_dtype_promotion("standard"):  # the core adds bools, in strict programs too
            present = present if norms is None else None
            state = _observed(observed, present, state, scheme, axis_name, update)
    if equilibrium:
        return jnp.sum(vector), state
    weights = state.weights if priorities is None else state.weights * priorities
    wide = jnp.promote_types(vector.dtype, weights.dtype)  # a float16 may be too narrow for them
    # Not a dot product, which accelerators round to fewer digits.
    return jnp.sum(weights.astype(wide) * vector.astype(wide)).astype(vector.dtype), state


def reset(
    state: AnyState, scheme: Scheme | int, *losses: str | int, names: Sequence[str] | None = None
) -> AnyState:
    """`state` begun anew: all, or the named losses (their numbers, where there are no names).

    A loss that is gone for good no longer holds the others' weights.
    """
    scheme = as_scheme(scheme)
    state = own_state(state, scheme)
    if not losses:
        return init(scheme, state.weights.dtype)
    return scheme.reset(state, states.selected(losses, names, scheme.num_losses), jnp)


def export_state(
    state: AnyState, scheme: Scheme | int | None = None, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The state as NumPy arrays that `import_state` of any backend takes.

    With `scheme` they say whose they are. Warns of a loss that was bad in more than half of the
    last 100 updates.

    Raises:
        ValueError: devices of this process hold different states, as `shard_map(check_vma=False)`
            without `axis_name` leaves them; or it is of another scheme.
    """
    check_copies(state)
    states.warn_of_bad(states.bad_names(state, names))
    if scheme is None:
        return exported(state, None, names)
    return exported(own_state(state, as_scheme(scheme)), as_scheme(scheme), names)


def import_state(
    exported: Mapping[str, Any],
    scheme: Scheme | int,
    dtype: Any = jnp.float32,
    names: Sequence[str] | None = None,
    *,
    strict: bool = True,
    partial: bool = False,
) -> AnyState:
    """The state that `export_state()` of any backend gave; ValueError if it does not fit.

    Args:
        exported: arrays by name.
        scheme: as in `init`.
        dtype: as in `init`.
        names: of the losses, which are matched by name where both sides have names.
        strict: False goes on although the scheme or its hyperparameters are others.
        partial: True takes the losses that have a name in both, the others begin fresh.
    """
    scheme, like = as_scheme(scheme), init(scheme, dtype)
    known = check_names(names, scheme.num_losses)
    floats = np.dtype(like.weights.dtype)
    given, _ = adopted(exported, scheme, known, strict=strict, partial=partial, dtype=floats)
    return type(like)(*(jnp.array(new, old.dtype) for new, old in zip(given, like, strict=True)))


def metrics(
    state: AnyState, names: Sequence[str] | None = None, scheme: Scheme | int | None = None
) -> dict[str, float]:
    """`loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`, for any logger.

    A weight at gamma is on AdaLoss's floor. Without a scheme there is an average for each loss,
    NaN where none is kept. Warns of losses that were bad in more than half of the last 100 updates.
    Waits for the device: call it as often as you log, not in every step. Refuses what
    `export_state` does.
    """
    check_copies(state)
    names = check_names(names, len(state.weights))
    states.warn_of_bad(states.bad_names(state, names))
    return states.state_metrics(state, names, None if scheme is None else as_scheme(scheme))


def own_state(state: AnyState, scheme: Scheme) -> AnyState:
    """The state, with the weights of a fixed scheme, which are configuration and no state.

    Raises:
        ValueError: it is of another scheme or another number of losses.
    """
    kind = scheme.state_type()
    shape = jnp.shape(state.weights) if hasattr(state, "weights") else None
    if type(state) is not kind or shape != (scheme.num_losses,):
        raise ValueError(
            f"the state must be a {kind.__name__} of {scheme.num_losses} losses, as init(scheme) "
            f"gives it, got a {type(state).__name__} with weights of shape {shape}"
        )
    weights = fixed_weights(scheme)
    if weights is None:
        return state
    return state._replace(weights=jnp.asarray(weights, state.weights.dtype))


def _observed(
    losses: Array,
    present: Any,
    state: AnyState,
    scheme: Scheme,
    axis_name: Hashable | None,
    update: Any,
) -> AnyState:
    """The state after these losses; all replicas hold what all have noted."""
    if axis_name is None and update is True:
        return move(scheme, state, losses, jnp, present)
    noted = note(jnp.zeros_like(state.pending), losses, scheme, jnp, present)
    if axis_name is not None:
        noted = lax.psum(noted, axis_name)  # type: ignore[no-untyped-call]
    return settle(scheme, state, state.pending + noted, jnp, update=update)


def _gather(
    losses: Any, names: tuple[str, ...] | None, mask: Any, state: AnyState
) -> tuple[Array, Any]:
    """The losses as one vector, zero where absent, and which are present (None: all)."""
    count = len(state.weights)
    named = names is not None and isinstance(losses, Mapping)
    if not named and not jax.tree_util.all_leaves([losses]):
        losses = jax.tree.leaves(losses, is_leaf=lambda leaf: leaf is None)
    ordered = in_order(losses, names, count)
    present: Any = None
    if isinstance(ordered, list):
        ordered, present = _stack(ordered, state.weights.dtype)
    vector = jnp.asarray(ordered)
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(f"losses must be real floating point, got {vector.dtype}")
    if mask is not None:
        mask = jnp.asarray(mask, bool)
        check_vector("a mask", mask.shape, count)
        vector = jnp.where(mask, vector, 0)
        present = mask if present is None else present & mask
    return vector, present


def _stack(losses: list[Any], dtype: Any) -> tuple[Array, np.ndarray | None]:
    """Scalars to a vector; an absent one is 0 and, if there is any, False in the second result."""
    there = {i: loss for i, loss in enumerate(losses) if loss is not None}
    check_scalars(() if loss is None else jnp.shape(loss) for loss in losses)
    if there:
        dtype = jnp.result_type(*there.values())
    vector = jnp.stack([jnp.asarray(there.get(i, 0), dtype) for i in range(len(losses))])
    if len(there) == len(losses):
        return vector, None
    return vector, np.array([i in there for i in range(len(losses))])


def _look(losses: Array, state: AnyState, scheme: Scheme) -> None:
    """ValueError for values that cannot be, where they are known: not while tracing."""
    if isinstance(losses, jax.core.Tracer) or any(isinstance(x, jax.core.Tracer) for x in state):
        return
    problems = impossible(state, scheme)
    if problems:
        raise ValueError(f"a state must be possible, got {'; '.join(problems)}")
    if state.step == 0 and not scheme.takes_negative and (losses < 0).any():  # absent ones are 0
        raise negative(scheme, losses.tolist())
