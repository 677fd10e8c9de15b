"""A callback for `fit`: the weights of the losses in the logs of batches."""

from __future__ import annotations

from typing import Any

from loss_balance.backends.keras.layer import Balancer
from loss_balance.backends.keras_bases import Callback
from loss_balance.backends.logged import in_one
from loss_balance.checks import check_count


class LossWeightLogger(Callback):
    """Puts `metrics()` of the balancers in a model into the logs of `fit`'s batches.

        model.fit(x, y, callbacks=[LossWeightLogger(every=50), TensorBoard(update_freq=50)])

    It comes before the callbacks that write the logs down. The keys are `loss_weight/<name>` and so
    on; if the model has several balancers, `loss_weight/<balancer>/<name>`, by the name of the
    layer. Each reading waits for the device; between two the logs have what the last one gave. The
    logs of an epoch need no callback: those of `balance_model` have the mean weights.

    Args:
        every: after how many batches to read, counted as TensorBoard's `update_freq`.
        prefix: of the names of the balancers to log; default: all.

    Raises:
        ValueError: `every` is no whole number of at least 1; when `fit` begins, the model has no
            such balancer.
    """

    def __init__(self, every: int = 1, prefix: str = "") -> None:
        super().__init__()
        check_count("every", every)
        self.every: int = every
        self.prefix: str = prefix
        self._batches, self._last = 0, dict[str, float]()

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        """Refuses a model without a balancer before anything is trained."""
        self._batches, self._last = 0, {}
        self._balancers()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._batches += 1
        if self._batches % self.every == 0:
            self._last = in_one({name: b.metrics() for name, b in self._balancers().items()})
        if logs is not None:
            logs.update(self._last)

    def _balancers(self) -> dict[str, Balancer]:
        """By name; on JAX, `self.model` brings the values up to date."""
        layers = (x for x in self.model._flatten_layers() if isinstance(x, Balancer))
        found = {x.name: x for x in layers if x.name.startswith(self.prefix)}
        if not found:
            begins = f" whose name begins with {self.prefix!r}" if self.prefix else ""
            raise ValueError(
                f"LossWeightLogger must have a model with a Balancer in it{begins}, "
                f"got {type(self.model).__name__} without"
            )
        return found
