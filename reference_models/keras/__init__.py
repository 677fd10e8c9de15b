"""The reference networks for Keras 3: images (B, H, W, C), logits (B, num_classes) per exit."""

from loss_balance.extras import require

require("tensorflow", __name__)

from loss_balance.reference_models.keras.net import AnytimeNet

__all__ = ["AnytimeNet"]
