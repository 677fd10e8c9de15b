"""The reference networks for Keras 3, and exits for models of one's own.

Images (B, H, W, C), logits (B, num_classes) per exit.
"""

from loss_balance.extras import require

require("tensorflow", __name__)

from loss_balance.reference_models.keras.net import AnytimeNet
from loss_balance.reference_models.keras.own import MultiExitNet, with_exits

__all__ = ["AnytimeNet", "MultiExitNet", "with_exits"]
