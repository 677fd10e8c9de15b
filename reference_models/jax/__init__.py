"""The reference networks for JAX (Flax NNX), and exits for stages of one's own.

Images (B, H, W, C), logits (B, num_classes) per exit.
"""

from loss_balance.extras import require

require("jax", __name__)

from loss_balance.reference_models.jax.net import AnytimeNet
from loss_balance.reference_models.jax.own import MultiExitNet, with_exits

__all__ = ["AnytimeNet", "MultiExitNet", "with_exits"]
