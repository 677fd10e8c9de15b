"""What a problem is: losses to train on, metrics to be judged by, and its own static weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

Fork = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # as of a balancer in equilibrium


class Metric(NamedTuple):
    """What a trained network is judged by; the lower the better."""

    title: str
    unit: str = ""
    factor: float = 1.0  # shown times this
    digits: int = 3


class Session(ABC):
    """One network in training, all of it drawn from one seed.

    Attributes:
        net: whose parameters are trained.
        shared: those that all losses depend on.
        steps: how many batches make an epoch.
    """

    net: nn.Module
    shared: list[nn.Parameter]
    steps: int

    @abstractmethod
    def epoch(self) -> Iterable[Any]:
        """The batches of the next epoch."""

    @abstractmethod
    def losses(self, batch: Any, fork: Fork) -> tuple[list[Tensor], Tensor | None]:
        """(the losses, the one tensor that all of them are made of, if there is one)."""

    @abstractmethod
    def metrics(self, split: str) -> list[float]:
        """Of the network now, on the "validation" or the "test" part."""


class Problem(ABC):
    """Losses, metrics, and how long to train.

    Attributes:
        name: by which results know it.
        title: of the page.
        losses: their names.
        metrics: what counts in the end.
        epochs: of a training.
        output: whether there is one tensor that all losses are made of.
        exits: whether the losses are those of exits along one trunk.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    losses: tuple[str, ...]
    metrics: tuple[Metric, ...]
    epochs: int
    output: ClassVar[bool] = True
    exits: ClassVar[bool] = False

    @property
    @abstractmethod
    def statics(self) -> dict[str, tuple[float, ...]]:
        """Two settings of static weights that someone would try."""

    @abstractmethod
    def session(self, seed: int) -> Session:
        """A network before training."""


def forked_nowhere(features: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """The fork of those who do nothing there."""
    del index
    return features, features
