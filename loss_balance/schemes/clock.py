"""The clock is the optimiser's: several calls, or several replicas, that make one update.

A call that is not the last one before the optimiser's step only notes its losses in
`State.pending`; the last one, perhaps after a sum over the replicas, moves the state on their mean.
Pure functions over `xp`, as a scheme's `update`.
"""

from __future__ import annotations

import math

from loss_balance.schemes.base import AnyState, Array, Namespace, Scheme


def note(
    pending: Array, losses: Array, scheme: Scheme, xp: Namespace, present: Array | None = None
) -> Array:
    """`pending` with one more micro-batch in it, shape (2, L): sums and counts.

    A loss that is absent or off, within `scheme.floor` of 0, does not count. One that is bad makes
    the sum bad, so that all replicas skip it alike: NaN stays NaN, and a negative one is -inf
    unless the scheme takes those.

    Args:
        pending: shape (2, L), zeros at first.
        losses: shape (L,), detached, in the dtype of `pending`.
        scheme: says what is off and what is bad.
        xp: namespace of the arrays.
        present: as in `Scheme.update`.
    """
    return pending + xp.stack(_counted(losses, scheme, xp, present))


def mean(pending: Array, xp: Namespace) -> tuple[Array, Array]:
    """(mean of each loss over the micro-batches and replicas that have it, whether any has it)."""
    return _mean(pending[0], pending[1], xp)


def move(
    scheme: Scheme, state: AnyState, losses: Array, xp: Namespace, present: Array | None = None
) -> AnyState:
    """The state after one call that is an update, on the mean of its losses and what is pending.

    As `note` and `settle` in one, without an array of both between them: compilers fuse all of it.
    """
    sums, counts = _counted(losses, scheme, xp, present)
    values, there = _mean(state.pending[0] + sums, state.pending[1] + counts, xp)
    return scheme.update(state._replace(pending=xp.zeros_like(state.pending)), values, xp, there)


def _counted(
    losses: Array, scheme: Scheme, xp: Namespace, present: Array | None
) -> tuple[Array, Array]:
    """What a call adds to the sums and to the counts."""
    # NaN by its own comparison: TensorFlow takes "not <=" for ">", which a NaN is not either.
    counts = (xp.abs(losses) > scheme.floor) | (losses != losses)
    counts = counts if present is None else present & counts
    if not scheme.takes_negative:
        losses = xp.where(losses < 0.0, -math.inf, losses)
    values = xp.where(counts, losses, 0.0)
    return values, xp.where(counts, xp.ones_like(values), 0.0)


def _mean(sums: Array, counts: Array, xp: Namespace) -> tuple[Array, Array]:
    present = counts > 0.0
    return sums / xp.where(present, counts, 1.0), present


def settle(
    scheme: Scheme, state: AnyState, pending: Array, xp: Namespace, *, update: Array | bool
) -> AnyState:
    """The state after one call in which `update`, which may be traced, says whether to move.

    Where it does, by the mean of what is pending; else that is kept.

    Args:
        scheme: whose state it is.
        state: before the call.
        pending: what `note` gave, with this call's losses in it.
        xp: namespace of the arrays.
        update: shape (), bool.

    Raises:
        ValueError: `update` is not one.
    """
    shape = tuple(getattr(update, "shape", ()))
    if shape:
        raise ValueError(f"update must be one bool, got an array of shape {shape}")
    values, there = mean(pending, xp)
    moved = scheme.update(state._replace(pending=xp.zeros_like(pending)), values, xp, there)
    waiting = state._replace(pending=pending)
    if isinstance(update, bool):
        return moved if update else waiting
    pairs = zip(moved, waiting, strict=True)
    return type(state)(*(new if new is old else xp.where(update, new, old) for new, old in pairs))
