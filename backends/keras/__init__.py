"""AdaLoss for Keras 3: `loss = Balancer(n)(losses)`, or `balance_model` for `fit`.

Both are written in `keras.ops`, so they run on TensorFlow, JAX and PyTorch as Keras does
(`KERAS_BACKEND`). TensorFlow itself is asked for two things alone: whether it is tracing, and what
the other replicas have.
"""

from loss_balance.extras import require

require("tensorflow", __name__)

from loss_balance.backends.keras.callbacks import LossWeightLogger
from loss_balance.backends.keras.layer import Balancer
from loss_balance.backends.keras.model import BalancedModel, balance_model

__all__ = ["BalancedModel", "Balancer", "LossWeightLogger", "balance_model"]
