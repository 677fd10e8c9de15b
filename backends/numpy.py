"""AdaLoss for NumPy: the reference that the other backends are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from loss_balance.backends.interface import (
    check_equilibrium,
    check_names,
    check_observed,
    check_priorities,
    check_scalars,
    check_vector,
    in_order,
    negative,
)
from loss_balance.backends.state import StatefulBalancer
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.base import AnyState, Scheme
from loss_balance.schemes.clock import note, settle

__all__ = ["Balancer"]


class Balancer(StatefulBalancer):
    """Weighted sum of losses whose weights follow the losses.

    >>> from loss_balance import AdaLoss
    >>> balance = Balancer(AdaLoss(2, gamma=0.0))
    >>> float(balance([4.0, 1.0]))  # 0.25 * 4 + 1 * 1
    2.0

    The weights are the gradient of the total with respect to the losses, but for `priorities`:
    where gradients are written by hand, multiply that of loss i by `weights[i]`.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        priorities: factors of the losses, >= 0, multiplied with the weights after these were
            computed from the losses as they are; default: 1. A coefficient that a loss is
            multiplied by beforehand would be undone by the balance; and to favour the last loss
            within the balance there is AdaLoss's `final_weight`.
        accumulate: how many calls make one update, on the mean of their losses, as many
            micro-batches make one step of the optimiser.
        dtype: of the state, whatever the losses' dtype.
        equilibrium: the weights act on the trunk's gradient, by `loss_balance.equilibrium.shares`
            of `weights`, in place of the total, which is the plain sum of the losses.

    Attributes:
        state: the scheme's `State` of arrays.
        training: False freezes the state, as `training=False` does for one call.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        priorities: Sequence[float] | None = None,
        accumulate: int = 1,
        dtype: DTypeLike = np.float64,
        equilibrium: bool = False,
    ) -> None:
        self.scheme: Scheme = as_scheme(scheme)
        self.names: tuple[str, ...] | None = check_names(names, self.scheme.num_losses)
        self.priorities: tuple[float, ...] | None = check_priorities(
            priorities, self.scheme.num_losses
        )
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"the state's dtype must be float32 or float64, got {self.dtype}")
        self.training = True
        self.equilibrium: bool = bool(equilibrium)
        self.begin_clock(accumulate)
        self.state: AnyState = self.scheme.init(np, self.dtype)

    def __call__(
        self,
        losses: Iterable[float | None] | Mapping[str, float | None] | NDArray[Any],
        mask: ArrayLike | None = None,
        *,
        priorities: ArrayLike | None = None,
        update: bool | None = None,
        training: bool | None = None,
        norms: ArrayLike | None = None,
    ) -> Any:
        """The weighted sum, a scalar in the losses' dtype; 0 if all losses are absent.

        Args:
            losses: an iterable of scalars, a mapping (see `names`) or an array of shape
                (num_losses,); None is a loss that is absent in this step.
            mask: shape (num_losses,), False where a loss is absent.
            priorities: shape (num_losses,), in place of the balancer's own in this call.
            update: False only notes the losses, for the mean that the next update takes; the
                weights stand still. Default: True at every `accumulate`-th call.
            training: whether to look at the losses at all; default: the attribute.
            norms: shape (num_losses,), for `GradientNorm` and its like: the norms of the losses'
                gradients where their exits branch off.

        Raises:
            ValueError: wrong count, shape or names; in the first call a negative loss, if the
                scheme takes none, or a state that cannot be.
        """
        vector, present = self._gather(losses, mask)
        check_equilibrium(self.equilibrium, priorities)
        factors = self._factors(priorities)
        training = self.training if training is None else training
        if training or norms is not None:
            check_observed(self.scheme, norms, equilibrium=self.equilibrium)
        seen, there = vector, present
        if norms is not None:
            seen, there = np.asarray(norms), np.ones_like(present)
            check_vector("norms", seen.shape, self.scheme.num_losses)
        if not self._checked:
            self._check_first(np.where(there, seen, 0))
        if training:
            self._observe(seen.astype(self.dtype), there, update)
        wide = np.result_type(vector, self.state.weights)
        counted = np.where(present, vector, 0).astype(wide)
        if self.equilibrium:
            return counted.sum().astype(vector.dtype)
        with np.errstate(invalid="ignore"):  # infinite losses of both signs: the total is NaN
            return ((self.state.weights * factors).astype(wide) @ counted).astype(vector.dtype)

    @property
    def weights(self) -> NDArray[Any]:
        """Shape (num_losses,), the scheme's weights of the last step, without priorities."""
        return np.asarray(self.state.weights)

    def metrics(self) -> dict[str, float]:
        """`loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`, for any logger.

        A weight at gamma is on AdaLoss's floor. Warns, once, of losses that were bad in more than
        half of the last 100 updates.
        """
        return self.read_metrics()

    def read_state(self) -> AnyState:
        return type(self.state)(*(np.array(value) for value in self.state))

    def write_state(self, state: AnyState) -> None:
        like = self.scheme.init(np, self.dtype)
        pairs = zip(state, like, strict=True)
        self.state = type(like)(*(np.array(new, np.asarray(old).dtype) for new, old in pairs))

    def state_dtype(self) -> np.dtype:
        return self.dtype

    def _check_first(self, losses: NDArray[Any]) -> None:
        """Refuses a state that cannot be, and negative losses before the first update."""
        self.check_state()
        if self.state.step == 0 and not self.scheme.takes_negative and (losses < 0).any():
            raise negative(self.scheme, losses.tolist())
        self._checked = True

    def _observe(self, losses: NDArray[Any], present: NDArray[Any], update: bool | None) -> None:
        now = self.due(update)
        if now and not self._waiting:
            self.state = self.scheme.update(self.state, losses, np, present)
        else:
            pending = note(self.state.pending, losses, self.scheme, np, present)
            self.state = settle(self.scheme, self.state, pending, np, update=now)
        self._waiting = not now

    def _factors(self, priorities: ArrayLike | None) -> Any:
        if priorities is None:
            return 1.0 if self.priorities is None else np.array(self.priorities)
        factors = np.asarray(priorities)
        check_vector("priorities", factors.shape, self.scheme.num_losses)
        return factors

    def _gather(self, losses: Any, mask: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """(losses, present), both of shape (num_losses,)."""
        count = self.scheme.num_losses
        ordered = in_order(losses, self.names, count)
        present = np.ones(count, bool)
        if isinstance(ordered, list):
            check_scalars(map(np.shape, ordered))
            present = np.array([loss is not None for loss in ordered])
            values = np.array([loss for loss in ordered if loss is not None])
            ordered = np.zeros(count, values.dtype)
            ordered[present] = values
        vector = np.asarray(ordered)
        if vector.dtype.kind in "iu":
            vector = vector.astype(np.float64)
        if vector.dtype.kind != "f":
            raise ValueError(f"losses must be real numbers, got dtype {vector.dtype}")
        if mask is not None:
            mask = np.asarray(mask, bool)
            check_vector("a mask", mask.shape, count)
            present = present & mask
        return vector, present
