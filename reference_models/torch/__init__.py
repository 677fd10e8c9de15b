"""The reference networks for PyTorch: images (B, C, H, W), logits (B, num_classes) per exit."""

from loss_balance.extras import require

require("torch", __name__)

from loss_balance.reference_models.torch.net import AnytimeNet, native, to_array

__all__ = ["AnytimeNet", "native", "to_array"]
