"""A callback for Lightning by its name of before: the weights of a module's losses, logged."""

from loss_balance.extras import require

require("pytorch_lightning", __name__)

from pytorch_lightning.callbacks import Callback

from loss_balance.backends.torch.logged import LightningHooks

__all__ = ["LossWeightLogger"]


class LossWeightLogger(LightningHooks, Callback):
    """`backends.torch.lightning.LossWeightLogger`, with its arguments, for `pytorch_lightning`."""
