"""The reference networks for PyTorch: images (B, C, H, W), logits (B, num_classes) per exit."""

from loss_balance.extras import require

require("torch", __name__)

from loss_balance.reference_models.torch.net import AnytimeNet, native, to_array
from loss_balance.reference_models.torch.own import MultiExitNet, with_exits

__all__ = ["AnytimeNet", "MultiExitNet", "native", "to_array", "with_exits"]
