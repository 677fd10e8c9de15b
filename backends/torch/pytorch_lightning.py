"""A callback for Lightning by its name of before: the weights of a module's losses, logged."""

from loss_balance.extras import require

require("pytorch_lightning", __name__)

from pytorch_lightning.callbacks import Callback

from loss_balance.backends.torch.logged import LightningHooks

__all__ = ["LossWeightLogger"]


class LossWeightLogger(LightningHooks, Callback):
    """Gives `metrics()` of the balancers in a LightningModule to all of the trainer's loggers.

        trainer = Trainer(callbacks=[LossWeightLogger()])

    The keys are `loss_weight/<name>` and so on; if the module has several balancers,
    `loss_weight/<balancer>/<name>`, by the name of its attribute. The steps are those of
    `self.log`. In other steps nothing waits for the device, and other processes than the first
    never do.

    Args:
        every: after how many steps of the optimizer; default: the trainer's `log_every_n_steps`.
        prefix: of the names of the balancers to log; default: all.

    Raises:
        ValueError: `every` is no whole number of at least 1; when `fit` begins, the module has no
            such balancer.
    """
