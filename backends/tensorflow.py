"""AdaLoss for TensorFlow, which is that for Keras: `loss_balance.backends.keras`."""

from loss_balance.backends.keras import BalancedModel, Balancer, balance_model

__all__ = ["BalancedModel", "Balancer", "balance_model"]
