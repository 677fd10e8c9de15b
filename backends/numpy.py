"""AdaLoss for NumPy: the reference that the other backends are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

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


class Balancer:
    """Weighted sum of losses whose weights follow the losses.

    >>> from loss_balance import AdaLoss
    >>> balance = Balancer(AdaLoss(2, gamma=0.0))
    >>> float(balance([4.0, 1.0]))  # 0.25 * 4 + 1 * 1
    2.0

    The weights are the gradient of the total with respect to the losses: where gradients are
    written by hand, multiply that of loss i by `weights[i]`.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        dtype: of the state, whatever the losses' dtype.

    Attributes:
        state: the scheme's `State` of arrays.
        training: False freezes the state, as `training=False` does for one call.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.scheme = as_scheme(scheme)
        self.names = check_names(names, self.scheme.num_losses)
        self.dtype = np.dtype(dtype)
        self.training = True
        self.state: AnyState = self.scheme.init(np, self.dtype)

    def __call__(
        self,
        losses: Sequence[float | None] | Mapping[str, float | None] | NDArray[Any],
        mask: ArrayLike | None = None,
        *,
        training: bool | None = None,
    ) -> Any:
        """The weighted sum, a scalar in the losses' dtype.

        Args:
            losses: a sequence, a mapping (see `names`) or an array of shape (num_losses,); None
                is a loss that is absent in this step.
            mask: shape (num_losses,), False where a loss is absent.
            training: whether to update the state; default: the attribute.

        Raises:
            ValueError: wrong count, shape or names; a negative loss in the first call.
        """
        vector, present = self._gather(losses, mask)
        if self.state.step == 0 and (vector[present] < 0).any():
            raise ValueError(NEGATIVE.format(vector.tolist()))
        if self.training if training is None else training:
            observed = vector.astype(self.dtype)
            self.state = self.scheme.update(self.state, observed, np, present)
        counted = np.where(present, vector, vector.dtype.type(0))
        with np.errstate(invalid="ignore"):  # infinite losses of both signs: the total is NaN
            return self.state.weights.astype(vector.dtype) @ counted

    @property
    def weights(self) -> NDArray[Any]:
        """Shape (num_losses,), the weights of the last step."""
        return np.asarray(self.state.weights)

    def export_state(self) -> dict[str, NDArray[Any]]:
        """The state as arrays that `import_state` of any backend takes."""
        return {name: np.array(value) for name, value in self.state._asdict().items()}

    def import_state(self, exported: Mapping[str, ArrayLike]) -> None:
        """Continues from `export_state()` of any backend; ValueError if it does not fit."""
        given = check_exported(exported, self.scheme)
        pairs = zip(given, self.state, strict=True)
        arrays = [np.array(new, dtype=np.asarray(old).dtype) for new, old in pairs]
        self.state = type(self.state)(*arrays)

    def metrics(self) -> dict[str, float]:
        """`{"loss_weight/<name>": weight}`; a weight at gamma is on AdaLoss's floor."""
        return weight_metrics(self.state.weights.tolist(), self.names)

    def _gather(self, losses: Any, mask: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """(losses, present), both of shape (num_losses,)."""
        count = self.scheme.num_losses
        ordered = in_order(losses, self.names, count)
        present = np.ones(count, bool)
        if isinstance(ordered, list):
            for i, loss in enumerate(ordered):
                if np.ndim(loss):
                    raise not_scalar(i, np.shape(loss))
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
            check_mask(mask.shape, count)
            present = present & mask
        return vector, present
