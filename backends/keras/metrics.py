"""What `balance_model` measures in its steps, for the logs."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from loss_balance.backends.keras.ops import cast
from loss_balance.backends.keras_bases import Metric


class BalanceMetric(Metric):
    """`loss_sum`, the mean of the unweighted sum of the losses, and beside it the mean weights.

    In one variable, for each costs a step as much as an operator. The weights are not in the
    result: a step would pass each on as a number of its own, and Keras look at it in every batch.

    Args:
        num_losses: L, how many there are.
    """

    def __init__(self, num_losses: int) -> None:
        super().__init__(name="loss_sum", dtype="float32")
        self.num_losses = num_losses
        # The weights; the losses, times their samples; how many steps and how many samples.
        self.totals: Any = self.add_variable((2 * num_losses + 2,), "zeros", name="totals")

    def update_state(self, losses: Any, samples: Any, weights: Any) -> None:
        """One step; the losses and the weights of shape (num_losses,), and how many samples."""
        if isinstance(samples, int):
            counts = ops.convert_to_tensor([1, samples], self.dtype)
        else:
            counts = ops.stack([1.0, ops.cast(samples, self.dtype)])
        losses = cast(losses, self.dtype) * counts[1]
        self.totals.assign_add(ops.concatenate([cast(weights, self.dtype), losses, counts]))

    def result(self) -> Any:
        totals = ops.convert_to_tensor(self.totals)
        return ops.divide_no_nan(ops.sum(totals[self.num_losses : -2]), totals[-1])

    def mean_weights(self) -> np.ndarray:
        """Of the steps since the last reset, shape (num_losses,), on the host; 0 before any."""
        totals: np.ndarray = ops.convert_to_numpy(self.totals)
        means: np.ndarray = totals[: self.num_losses] / max(totals[-2], 1.0)
        return means
