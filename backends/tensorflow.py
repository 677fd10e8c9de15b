"""AdaLoss for TensorFlow and Keras 3: `loss = Balancer(n)(losses)`, or `balance_model` for `fit`.

Both are written in `keras.ops`, so they run on JAX and PyTorch too where Keras does
(`KERAS_BACKEND`). TensorFlow itself is asked for two things alone: whether it is tracing, and what
the other replicas have.
"""

from __future__ import annotations

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "loss_balance.backends.tensorflow needs Keras 3 and TensorFlow: "
        "pip install 'loss-balance[tensorflow]', or [tensorflow-cpu] without a GPU"
    ) from error

from loss_balance.backends.keras_layer import Balancer
from loss_balance.backends.keras_model import BalancedModel, balance_model

__all__ = ["BalancedModel", "Balancer", "balance_model"]
