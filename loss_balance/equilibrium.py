r"""Gradient equilibrium: how much each exit pulls on the trunk, and how exits learn from the last.

A weighted sum of the exits' losses can only trade early exits for late ones. The weight of an early
loss slows its own head, which no other loss uses, along with its pull on the shared trunk; and the
first blocks of the trunk receive the sum of all gradients, the last ones a single gradient.

So each head learns from its own loss, unweighted, and where exit i branches off the trunk the
gradients are mixed: the head's by :math:`w_i / T_i`, the one from deeper down by
:math:`T_{i+1} / T_i`, with tail sums :math:`T_i = w_i + \dots + w_L`. By induction the trunk before
exit i receives the mean of the gradients of all losses from i on, weighted by w: one loss' worth at
any depth. Constant weights give the gradient equilibrium of Li et al. ("Improved Techniques for
Training Adaptive Deep Networks", ICCV 2019, arXiv:1908.06294); AdaLoss's are beyond both papers.

The balancers call this in `fork` and `guidance`; here is no gradient, only the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from loss_balance.checks import check_range
from loss_balance.schemes.averaging import Schedule
from loss_balance.schemes.base import Array, Namespace

STRENGTH, TEMPERATURE = 1.0, 3.0  # of the guidance, unless told otherwise


def shares(
    weights: Array, xp: Namespace, pull: float = 1.0, priorities: Array | None = None
) -> tuple[Array, Array]:
    r"""(what of the trunk's gradient comes from each exit's head, what from deeper), (L,) each.

    >>> import numpy as np
    >>> own, deeper = shares(np.ones(3), np)
    >>> own.round(3).tolist(), deeper.round(3).tolist()
    ([0.333, 0.5, 1.0], [0.667, 0.5, 0.0])

    :math:`w_i / T_i` and :math:`T_{i+1} / T_i`, which sum to 1. Where no loss from i on weighs
    anything the trunk gets the deeper gradient as it is: 0 and 1. No factor of all weights matters.

    Args:
        weights: shape (L,), at least 0, of the exits' losses, the first exit's first.
        xp: namespace of the arrays.
        pull: the weights count to this power: 1 as they are, 0 evenly, but a weight of 0 never.
        priorities: shape (L,), at least 0, factors beside that.
    """
    count = weights.shape[0]
    if pull != 1.0:
        weights = xp.where(weights > 0.0, weights**pull, 0.0)
    if priorities is not None:
        weights = weights * priorities
    each = xp.broadcast_to(weights, (count, count))  # row i becomes w_i ... w_L
    tail, after = xp.sum(xp.triu(each), 1), xp.sum(xp.triu(each, 1), 1)
    pulls = tail > 0.0
    tail = xp.where(pulls, tail, 1.0)
    return weights / tail, xp.where(pulls, after / tail, 1.0)


def guidance(
    logits: Array | Sequence[Array],
    weights: Array,
    strength: Array | float,
    temperature: float,
    xp: Namespace,
) -> Array:
    r"""What each exit's loss gains by learning from the last exit, shape (L,).

    .. math:: g (1 - w_i) \tau^2 KL(softmax(z_L / \tau) || softmax(z_i / \tau))

    averaged over the samples: an exit is taught in the share that its weight took from it. The last
    exit's is 0, as is that of an exit of weight 1. Distillation with a temperature is of Hinton et
    al. (2015, arXiv:1503.02531), whose factor tau squared keeps the gradient's size.

    Args:
        logits: shape (L, ..., classes), or a sequence of L arrays (..., classes). The last exit's
            are to come without a gradient: it is not to learn from its pupils.
        weights: shape (L,), in [0, 1], as of AdaLoss; detached.
        strength: g, at least 0; an array of shape () where it changes.
        temperature: tau, above 0.
        xp: namespace of the arrays.

    Raises:
        ValueError: strength or temperature is out of its range, or there is not one weight for each
            exit.
    """
    if isinstance(strength, Real):
        check_range("strength", strength, 0.0)
    check_range("temperature", temperature, 0.0, open_low=True)
    if len(logits) != weights.shape[0]:
        raise ValueError(f"logits must be of {weights.shape[0]} exits, got {len(logits)}")
    stacked: Array = xp.stack(tuple(logits)) if isinstance(logits, (list, tuple)) else logits
    answers = _log_softmax(stacked / temperature, xp)
    taught = answers[-1]
    apart = xp.sum(xp.exp(taught) * (taught - answers), -1)  # KL, (L, ...)
    mean = xp.mean(xp.reshape(apart, (weights.shape[0], -1)), 1)
    return strength * temperature**2 * (1.0 - weights) * mean


def check_pull(pull: float) -> float:
    """`pull` as a float; ValueError unless it is from 0 to 1."""
    check_range("pull", pull, 0.0, 1.0)
    return float(pull)


def strength_at(strength: float | Schedule, step: Array, xp: Namespace, dtype: Any) -> Any:
    """The strength after `step` updates: a number as it is, of a schedule its value there."""
    return strength(step, xp, dtype) if callable(strength) else strength


def _log_softmax(logits: Array, xp: Namespace) -> Array:
    """Over the last axis; the largest is taken off first, so that nothing overflows."""
    shifted = logits - xp.amax(logits, -1)[..., None]
    return shifted - xp.log(xp.sum(xp.exp(shifted), -1))[..., None]
