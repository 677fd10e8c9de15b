"""AdaLoss for TensorFlow, which is that for Keras: `loss_balance.backends.keras`."""

from loss_balance.backends.keras import BalancedModel, Balancer, LossWeightLogger, balance_model

__all__ = ["BalancedModel", "Balancer", "LossWeightLogger", "balance_model"]
