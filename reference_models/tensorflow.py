"""The networks for TensorFlow, which are those for Keras."""

from loss_balance.reference_models.keras import AnytimeNet, MultiExitNet, with_exits

__all__ = ["AnytimeNet", "MultiExitNet", "with_exits"]
