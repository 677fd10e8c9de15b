"""AdaLoss for PyTorch: `loss = Balancer(n)(losses)` in place of `loss = sum(losses)`."""

from loss_balance.extras import require

require("torch", __name__)

from loss_balance.backends.torch.balancer import Balancer

__all__ = ["Balancer"]
