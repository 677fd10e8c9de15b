"""A callback for Hugging Face's Trainer: the weights of a model's losses in its logs."""

from loss_balance.extras import require

require("transformers", __name__)

from typing import Any

from transformers import Trainer, TrainerCallback

from loss_balance.backends.torch.logged import balancers, check_every, metrics_in

__all__ = ["LossWeightLogger"]


class LossWeightLogger(TrainerCallback):
    """Puts `metrics()` of the balancers in a Trainer's model beside the loss that it logs.

        trainer.add_callback(LossWeightLogger(trainer))

    So they are in `trainer.state.log_history` and in whatever `report_to` names. It takes the
    trainer, for it must come before the callbacks that report, and Trainer puts those first. The
    keys are `loss_weight/<name>` and so on; if the model has several balancers,
    `loss_weight/<balancer>/<name>`, by the name of its attribute. In steps that are not logged
    nothing waits for the device, and other processes than the first never do.

    Args:
        trainer: that the callback is for.
        every: after how many steps of the optimizer to log, beside those of `logging_steps`;
            default: these alone.
        prefix: of the names of the balancers to log; default: all.

    Raises:
        ValueError: `every` is no whole number of at least 1, or the model has no such balancer.
    """

    def __init__(self, trainer: Trainer, every: int | None = None, prefix: str = "") -> None:
        self.trainer: Trainer = trainer
        self.every: int | None = check_every(every)
        self.prefix: str = prefix
        if trainer.model is not None:
            balancers(trainer.model, prefix)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Goes to the front."""
        handler = self.trainer.callback_handler
        # A list of its own: the one of before is being gone through.
        handler.callbacks = [self, *(each for each in handler.callbacks if each is not self)]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if self.every and state.global_step % self.every == 0:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Adds to the training loss; not to what is logged of an evaluation, or of the end."""
        logs = given["logs"]
        if "loss" in logs and state.is_world_process_zero:
            found = metrics_in(given["model"], self.prefix)
            logs.update(found)
            state.log_history[-1].update(found)
