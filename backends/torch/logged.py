"""What the callbacks of trainers share: which balancers there are, and what is logged of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from loss_balance.backends.logged import in_one
from loss_balance.backends.torch.balancer import Balancer
from loss_balance.checks import check_count

# What wrappers call the module that they hold: torch.compile, FSDP, recomputation.
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def balancers(module: nn.Module, prefix: str = "") -> dict[str, Balancer]:
    """The balancers within a module by their name there, without what wrappers add to it.

    Raises:
        ValueError: there is none whose name begins with `prefix`.
    """
    found = {
        name: each
        for name, each in ((_plain(n), m) for n, m in module.named_modules())
        if isinstance(each, Balancer) and name.startswith(prefix)
    }
    if not found:
        begins = f" whose name begins with {prefix!r}" if prefix else ""
        raise ValueError(
            f"LossWeightLogger must have a module with a Balancer in it{begins}, "
            f"got {type(module).__name__} without"
        )
    return found


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def metrics_in(module: nn.Module, prefix: str = "") -> dict[str, float]:
    """`metrics()` of all balancers within a module; waits for the device."""
    return in_one({name: each.metrics() for name, each in balancers(module, prefix).items()})


def check_every(every: int | None) -> int | None:
    """`every`; ValueError unless it is None or a whole number of at least 1."""
    if every is not None:
        check_count("every", every)
    return every


class LightningHooks:
    """What the callbacks of `lightning` and `pytorch_lightning` do, which are two classes.

    Args:
        every: after how many steps of the optimizer; default: the trainer's `log_every_n_steps`.
        prefix: of the names of the balancers to log; default: all.
    """

    def __init__(self, every: int | None = None, prefix: str = "") -> None:
        self.every: int | None = check_every(every)
        self.prefix: str = prefix
        self._steps = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Refuses a module without a balancer before anything is trained."""
        balancers(pl_module, self.prefix)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._steps = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Logs where this batch made the optimizer step and the step is one to be logged."""
        stepped, self._steps = trainer.global_step != self._steps, trainer.global_step
        # The axis of `self.log`: one a batch, however many optimizers there are.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        every = self.every or trainer.log_every_n_steps
        if not (stepped and every and trainer.loggers) or (step + 1) % every:
            return
        if trainer.is_global_zero:
            found = metrics_in(pl_module, self.prefix)
            for logger in trainer.loggers:
                logger.log_metrics(found, step=step)
