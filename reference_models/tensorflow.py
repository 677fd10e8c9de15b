"""The reference networks for TensorFlow, which are those for Keras."""

from loss_balance.reference_models.keras import AnytimeNet

__all__ = ["AnytimeNet"]
