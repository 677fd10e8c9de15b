"""EnCodec's balancer, as AudioCraft publishes it: the package `encodec` came out before it.

`pip install --no-deps audiocraft flashy dora-search ...`: AudioCraft asks for an old PyTorch and for
much that its balancer does not need, so that one file of it is loaded alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.interface import Losses, Way
from benchmarks.peers.problem import RATE, TASKS, Epochs, criteria

NAME = "audiocraft_losses_balancer"


def package() -> ModuleType:
    """audiocraft/losses/balancer.py.

    Raises:
        ModuleNotFoundError: AudioCraft is not installed.
    """
    found = find_spec("audiocraft")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'audiocraft'", name="audiocraft")
    if NAME not in sys.modules:
        path = Path(found.submodule_search_locations[0]) / "losses" / "balancer.py"
        spec = spec_from_file_location(NAME, path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[NAME] = module
    return sys.modules[NAME]


def by_output(net: nn.Module, epochs: Epochs, make: Callable[[], Any]) -> None:
    """A dict of losses, and the tensor that they all depend on."""
    balancer = make()
    optimizer = SGD(net.parameters(), lr=RATE)
    for epoch in epochs:
        for x, y in epoch:
            output = net(x)
            losses = criteria(output, y)
            optimizer.zero_grad()
            balancer.backward({str(k): loss for k, loss in enumerate(losses)}, output)
            optimizer.step()


class EnCodec(Way):
    """Gradients at the output, each divided by the running mean of its norm."""

    owns_backward = True
    loop = staticmethod(by_output)

    def __init__(self, count: int, shared: Sequence[nn.Parameter]) -> None:
        super().__init__(count, shared)
        self.balancer = self.make(count)

    @staticmethod
    def make(count: int = TASKS) -> Any:
        """The package's object."""
        return package().Balancer({str(k): 1.0 for k in range(count)})

    def backward(self, losses: Losses, output: Tensor) -> None:
        self.balancer.backward({str(k): loss for k, loss in enumerate(losses)}, output)


package()
WAYS = {"audiocraft (EnCodec) Balancer": EnCodec}
