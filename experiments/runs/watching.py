"""What is told of runs while they go, and who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loss_balance.experiments.training.loop import Record


@dataclass(frozen=True)
class Step:
    """What a running worker reports now and then."""

    run: str
    epoch: int
    step: int
    loss: float  # of the last exit


@dataclass(frozen=True)
class Epoch:
    """What it reports of each epoch: its line of metrics.jsonl."""

    run: str
    record: Record


@dataclass(frozen=True)
class Done:
    """The run finished, in this call or in an earlier one."""

    run: str


Report = Step | Epoch | Done
Tell = Callable[[Report], None]


class Watch:
    """What is told of runs as they go; this one looks away."""

    def on_step(self, step: Step) -> None:
        """A worker moved on."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch is over and kept."""

    def on_done(self, run: str) -> None:
        """A run finished, in this call or in an earlier one."""

    def tell(self, report: Report) -> None:
        """Any of these."""
        match report:
            case Step():
                self.on_step(report)
            case Epoch():
                self.on_epoch(report)
            case Done(run):
                self.on_done(run)
