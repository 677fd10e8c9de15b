"""LibMTL's weightings (`pip install --no-deps LibMTL`), without its trainer.

`import LibMTL` imports its architectures too, and these torchvision; so an empty package of that
name is put in its place, with the same folder, and the weightings are imported from there. They are
meant to be mixed into the trainer's model: what they read of it (`task_num`, `device`, `epoch`,
`train_loss_buffer`, the shared parameters) is set here as the trainer sets it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria

ARGUMENTS = {"T": 2.0, "dist": "Normal", "alpha": 1.5}  # its defaults, of DWA, RLW and GradNorm
MOST_EPOCHS = 1000


def package() -> ModuleType:
    """LibMTL.weighting.

    Raises:
        ModuleNotFoundError: LibMTL is not installed.
    """
    if "LibMTL" not in sys.modules:
        found = find_spec("LibMTL")
        if found is None:
            raise ModuleNotFoundError("No module named 'LibMTL'", name="LibMTL")
        bare = ModuleType("LibMTL")
        bare.__path__ = list(found.submodule_search_locations or ())
        sys.modules["LibMTL"] = bare
    return importlib.import_module("LibMTL.weighting")


def simple(net: Any, epochs: Epochs, make: Callable[[], Any]) -> None:
    """A weighting that needs the losses alone."""
    weighting = make()
    weighting.task_num, weighting.device = TASKS, torch.device("cpu")
    weighting.init_param()
    optimizer = SGD([*net.parameters(), *weighting.parameters()], lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            weighting.backward(torch.stack(losses), **ARGUMENTS)
            optimizer.step()


def with_history(net: Any, epochs: Epochs, make: Callable[[], Any]) -> None:
    """One that asks for each epoch's mean losses."""
    weighting = make()
    weighting.task_num, weighting.device = TASKS, torch.device("cpu")
    weighting.train_loss_buffer = np.zeros((TASKS, len(epochs)))
    weighting.init_param()
    optimizer = SGD([*net.parameters(), *weighting.parameters()], lr=RATE)
    for number, epoch in enumerate(epochs):
        weighting.epoch = number
        seen = []
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            weighting.backward(torch.stack(losses), **ARGUMENTS)
            optimizer.step()
            seen.append(torch.stack(losses).detach())
        weighting.train_loss_buffer[:, number] = torch.stack(seen).mean(0).numpy()


def with_gradients(net: Any, epochs: Epochs, make: Callable[[], Any]) -> None:
    """One that asks for the shared parameters too."""
    weighting = make()
    weighting.task_num, weighting.device = TASKS, torch.device("cpu")
    weighting.rep_grad = False
    weighting.get_share_params = net.trunk.parameters
    weighting.zero_grad_share_params = lambda: net.trunk.zero_grad(set_to_none=False)
    weighting.train_loss_buffer = np.zeros((TASKS, len(epochs)))
    weighting.init_param()
    optimizer = SGD([*net.parameters(), *weighting.parameters()], lr=RATE)
    for number, epoch in enumerate(epochs):
        weighting.epoch = number
        seen = []
        for x, y in epoch:
            losses = criteria(net(x), y)
            optimizer.zero_grad()
            weighting.backward(torch.stack(losses), **ARGUMENTS)
            optimizer.step()
            seen.append(torch.stack(losses).detach())
        weighting.train_loss_buffer[:, number] = torch.stack(seen).mean(0).numpy()


class Weighting(Way):
    """Any of them."""

    owns_backward = True
    loop = staticmethod(simple)

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.module: Any = self.make(count)
        self.module.task_num, self.module.device = count, torch.device("cpu")
        self.module.rep_grad = False
        self.module.get_share_params = lambda: iter(self.shared)
        self.module.zero_grad_share_params = self._zero
        self.module.train_loss_buffer = np.zeros((count, MOST_EPOCHS))
        self.module.epoch = 0
        self.module.init_param()

    @classmethod
    def make(cls, _: int = TASKS) -> Any:
        """The package's object."""
        return getattr(package(), cls.__name__)()

    def _zero(self) -> None:
        for parameter in self.shared:
            if parameter.grad is not None:
                parameter.grad.zero_()

    def backward(self, losses: Losses, output: Tensor) -> None:
        del output
        self.module.backward(torch.stack(losses), **ARGUMENTS)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())


class EW(Weighting):
    """Equal weights."""


class UW(Weighting):
    """Uncertainty weighting."""


class GLS(Weighting):
    """Geometric loss strategy."""


class RLW(Weighting):
    """Random loss weighting."""


class DWA(Weighting):
    """Dynamic weight average; each epoch's mean losses are handed over, as the trainer does."""

    loop = staticmethod(with_history)

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self._seen: Losses = []

    def backward(self, losses: Losses, output: Tensor) -> None:
        super().backward(losses, output)
        self._seen.append(torch.stack(losses).detach())

    def after_epoch(self) -> None:
        if not self._seen:  # all of its batches were left out: no epoch of the trainer's
            return
        means = torch.stack(self._seen).mean(0).numpy()
        self.module.train_loss_buffer[:, self.module.epoch] = means
        self.module.epoch += 1
        self._seen = []


class GradNorm(DWA):
    """Gradient normalisation, from the second epoch on."""

    loop = staticmethod(with_gradients)


WAYS = {f"LibMTL {way.__name__}": way for way in (EW, UW, GLS, RLW, DWA, GradNorm)}
package()
