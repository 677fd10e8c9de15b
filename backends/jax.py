"""AdaLoss for JAX: pure functions over a `State`, and a Flax NNX module that holds one.

state = init(3)
total, state = balance([loss1, loss2, loss3], state, 3)  # inside jit, grad, scan, shard_map
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

try:
    import jax
    import jax.numpy as jnp
    from flax import nnx
except ModuleNotFoundError as error:
    raise ImportError(
        "loss_balance.backends.jax needs JAX and Flax: pip install 'loss-balance[jax]'"
    ) from error
from jax import Array, lax

from loss_balance.adaloss import as_scheme
from loss_balance.backends.interface import (
    NEGATIVE,
    check_exported,
    check_mask,
    check_names,
    in_order,
    not_scalar,
    weight_metrics,
)
from loss_balance.base import AnyState, Scheme


def init(scheme: Scheme | int, dtype: Any = jnp.float32) -> AnyState:
    """The state before the first step: a pytree of arrays, floats in `dtype`.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        dtype: of the averages and weights, whatever the losses' dtype.
    """
    return as_scheme(scheme).init(jnp, dtype)


def balance(
    losses: Any,
    state: AnyState,
    scheme: Scheme | int,
    axis_name: Hashable | None = None,
    *,
    names: Sequence[str] | None = None,
    mask: Any = None,
    training: bool = True,
) -> tuple[Array, AnyState]:
    """The weighted sum, a scalar in the losses' dtype, and the next state.

    Pure: it works under `jit` (close over `scheme` or make it static: it is hashable), `grad` with
    `has_aux`, `vmap`, `lax.scan` and `shard_map`. No gradient flows through the weights or into the
    state. Compiled, it never waits for the device; an eager call reads `state.step` and, at 0, the
    losses.

    With `axis_name` the averages follow the mean loss over all replicas that have it (one
    all-reduce), so every replica holds the same state; the total stays the replica's own. In
    `shard_map` differentiate `lax.pmean(total, axis_name)`: with its default `check_vma` the
    gradient of a replicated parameter is summed over the replicas already, and a `pmean` of the
    gradients would leave it so.

    Args:
        losses: a vector of shape (num_losses,), which is the fast path, or any pytree of scalars
            in JAX's own order, which sorts the keys of a dict ("exit10" before "exit2"): give
            `names` where the order matters. None is a loss that is absent in this step.
        state: what `init` or the previous call returned.
        scheme: as in `init`.
        axis_name: of the mapped axis or axes whose replicas share one state.
        names: the order of a mapping's entries.
        mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN, and
            its gradient are then left out.
        training: False leaves the state as it is.

    Raises:
        ValueError: wrong count, shape or names; a negative loss in the first call, if eager.
    """
    scheme = as_scheme(scheme)
    vector, present = _gather(
        losses, check_names(names, scheme.num_losses), mask, scheme.num_losses
    )
    observed, state = lax.stop_gradient((vector, state))
    _refuse_negative(observed, state.step)
    if training:
        observed = observed.astype(state.average.dtype)
        if axis_name is not None:
            observed, present = _mean_over_replicas(observed, present, axis_name)
        with jax.numpy_dtype_promotion("standard"):  # the core adds bools, in strict programs too
            state = scheme.update(state, observed, jnp, present)
    # Not a dot product, which accelerators round to fewer digits.
    return jnp.sum(state.weights.astype(vector.dtype) * vector), state


def export_state(state: AnyState) -> dict[str, np.ndarray]:
    """The state as NumPy arrays that `import_state` of any backend takes."""
    return {name: np.array(value) for name, value in state._asdict().items()}


def import_state(
    exported: Mapping[str, Any], scheme: Scheme | int, dtype: Any = jnp.float32
) -> AnyState:
    """The state that `export_state()` of any backend gave; ValueError if it does not fit."""
    scheme = as_scheme(scheme)
    given, like = check_exported(exported, scheme), init(scheme, dtype)
    return type(like)(*(jnp.array(new, old.dtype) for new, old in zip(given, like, strict=True)))


def metrics(state: AnyState, names: Sequence[str] | None = None) -> dict[str, float]:
    """`{"loss_weight/<name>": weight}`; a weight at gamma is on AdaLoss's floor.

    Waits for the device: call it as often as you log, not in every step.
    """
    weights = np.asarray(state.weights).tolist()
    return weight_metrics(weights, check_names(names, len(weights)))


class BalanceState(nnx.Variable[Any]):
    """A balancer's running state, as `nnx.BatchStat` is a batch norm's: no parameter."""


class Balancer(nnx.Module):
    """`balance` as a Flax NNX module that keeps its state.

        balance = Balancer(AdaLoss(3))
        loss = balance([loss1, loss2, loss3])

    The state lives in Variables of type `BalanceState`, so `nnx.split` and `nnx.state` tell it from
    parameters, and `nnx.jit` and `nnx.grad` carry its updates out; as with batch norm, make it part
    of the model or pass it to the transformed function. `eval()` freezes it.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        dtype: of the state, whatever the losses' dtype.
        axis_name: as in `balance`.
    """

    average: BalanceState
    weights: BalanceState
    step: BalanceState
    skipped: BalanceState

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        dtype: Any = jnp.float32,
        axis_name: Hashable | None = None,
    ) -> None:
        self.scheme = as_scheme(scheme)
        self.names = check_names(names, self.scheme.num_losses)
        self.axis_name = axis_name
        self.use_running_average = False  # the name that eval() and train() set, as in BatchNorm
        for name, value in init(self.scheme, dtype)._asdict().items():
            setattr(self, name, BalanceState(value))

    def __call__(self, losses: Any, mask: Any = None) -> Array:
        """The weighted sum; updates the state in training mode.

        Arguments and errors as in `balance`, but a mapping needs the balancer's `names`.
        """
        if isinstance(losses, Mapping):
            losses = in_order(losses, self.names, self.scheme.num_losses)
        training = not self.use_running_average
        total, state = balance(
            losses, self.state, self.scheme, self.axis_name, mask=mask, training=training
        )
        if training:
            self._keep(state)
        return total

    @property
    def state(self) -> AnyState:
        """What the functions of this module take, now."""
        like = self.scheme.init(np)
        return type(like)(*(getattr(self, name).get_value() for name in like._fields))

    def _keep(self, state: AnyState) -> None:
        for name, value in state._asdict().items():
            getattr(self, name).set_value(value)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """For `nnx.view`: True freezes the state."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def export_state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays that `import_state` of any backend takes."""
        return export_state(self.state)

    def import_state(self, exported: Mapping[str, Any]) -> None:
        """Continues from `export_state()` of any backend; ValueError if it does not fit."""
        self._keep(import_state(exported, self.scheme, self.average.get_value().dtype))

    def metrics(self) -> dict[str, float]:
        """As the function `metrics`, with the balancer's names."""
        return metrics(self.state, self.names)


def _gather(losses: Any, names: tuple[str, ...] | None, mask: Any, count: int) -> tuple[Array, Any]:
    """The losses as one vector, zero where absent, and which are present (None: all)."""
    named = names is not None and isinstance(losses, Mapping)
    if not named and not jax.tree_util.all_leaves([losses]):
        losses = jax.tree.leaves(losses, is_leaf=lambda leaf: leaf is None)
    ordered = in_order(losses, names, count)
    present: Any = None
    if isinstance(ordered, list):
        ordered, present = _stack(ordered)
    vector = jnp.asarray(ordered)
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(f"losses must be real floating point, got {vector.dtype}")
    if mask is not None:
        mask = jnp.asarray(mask, bool)
        check_mask(mask.shape, count)
        vector = jnp.where(mask, vector, 0)
        present = mask if present is None else present & mask
    return vector, present


def _stack(losses: list[Any]) -> tuple[Array, np.ndarray | None]:
    """Scalars to a vector; an absent one is 0 and, if there is any, False in the second result."""
    there = {i: loss for i, loss in enumerate(losses) if loss is not None}
    for i, loss in there.items():
        if jnp.ndim(loss):
            raise not_scalar(i, jnp.shape(loss))
    dtype = jnp.result_type(*there.values())
    vector = jnp.stack([jnp.asarray(there.get(i, 0), dtype) for i in range(len(losses))])
    if len(there) == len(losses):
        return vector, None
    return vector, np.array([i in there for i in range(len(losses))])


def _refuse_negative(losses: Array, step: Array) -> None:
    """ValueError for a negative loss at step 0, where values are known: not while tracing."""
    if isinstance(losses, jax.core.Tracer) or isinstance(step, jax.core.Tracer):
        return
    if step == 0 and (losses < 0).any():  # absent ones are zero here
        raise ValueError(NEGATIVE.format(losses.tolist()))


def _mean_over_replicas(
    losses: Array, present: Any, axis_name: Hashable
) -> tuple[Array, Array | None]:
    """(mean of each loss over the replicas that have it, whether any has it), one all-reduce.

    A NaN on one replica makes the mean NaN on all, so all skip it alike.
    """
    if present is None:
        return lax.pmean(losses, axis_name), None  # type: ignore[no-untyped-call]
    both = jnp.stack((losses, present.astype(losses.dtype)))  # absent losses are 0 already
    sums, counts = lax.psum(both, axis_name)  # type: ignore[no-untyped-call]
    return sums / jnp.maximum(counts, 1), counts > 0
