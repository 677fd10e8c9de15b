"""What `balance_model` adds to the logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


class WeightMetric(keras.metrics.Metric):
    """`loss_weight/<name>`, the mean over an epoch, and `loss_skipped/<name>`, the count so far.

    Args:
        num_losses: how many there are.
        names: gives their names once they are known; until then they are 0, 1, ...
    """

    def __init__(self, num_losses: int, names: Callable[[], tuple[str, ...] | None]) -> None:
        super().__init__(name="loss_weights", dtype="float32")
        self.names = names
        self.total = self.add_variable((num_losses,), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")
        # All replicas count alike.
        self.skipped = self.add_variable(
            (num_losses,), "zeros", aggregation="only_first_replica", name="skipped"
        )

    def update_state(self, weights: Any, skipped: Any) -> None:
        """Both of shape (num_losses,)."""
        self.total.assign_add(ops.cast(weights, self.dtype))
        self.count.assign_add(1.0)
        self.skipped.assign(ops.cast(skipped, self.dtype))

    def result(self) -> dict[str, Any]:
        means = ops.divide_no_nan(self.total, self.count)
        skipped = ops.convert_to_tensor(self.skipped)
        labels = self.names() or tuple(map(str, range(self.total.shape[0])))
        weights = {f"loss_weight/{name}": means[i] for i, name in enumerate(labels)}
        return weights | {f"loss_skipped/{name}": skipped[i] for i, name in enumerate(labels)}
