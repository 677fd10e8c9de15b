"""The reference networks for JAX (Flax NNX): images (B, H, W, C), logits (B, num_classes)."""

from loss_balance.extras import require

require("jax", __name__)

from loss_balance.reference_models.jax.net import AnytimeNet

__all__ = ["AnytimeNet"]
