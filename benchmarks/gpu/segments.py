"""A network's segments, what lies between exits, each computed into tensors that stay.

So each can be captured as a CUDA graph once and replayed for every image: a small network's time at
batch 1 is that of launching its kernels one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.cuda import captured
from benchmarks.timing import Step
from loss_balance.reference_models.torch import AnytimeNet


class Segments:
    """`net.anytime` for one shape of images, in evaluation mode.

    What an exit gives is overwritten when the next image comes to that exit.

    Args:
        net: in evaluation mode; its weights may change later, in place.
        images: (B, C, H, W), of the shape and on the device of those to come.
        graphs: whether to capture them as CUDA graphs.
    """

    @torch.inference_mode()
    def __init__(self, net: AnytimeNet, images: Tensor, *, graphs: bool) -> None:
        parts = list(_between_exits(net))
        self._features: list[Any] = [images.clone(), *(None for _ in parts)]
        self._logits: list[Any] = [None for _ in parts]
        self._steps: list[Step] = []
        pool = None
        for k, (units, head) in enumerate(parts):
            step = self._step(k, units, head)
            if graphs:
                graph = captured(step, pool)
                pool, step = graph.pool(), graph.replay
            self._steps.append(step)

    def _step(self, k: int, units: list[nn.Module], head: nn.Module) -> Step:
        def step() -> None:
            features = self._features[k]
            for unit in units:
                features = unit(features)
            self._features[k + 1] = features
            self._logits[k] = head(features[-1] if isinstance(features, list) else features)

        return step

    def anytime(self, images: Tensor) -> Iterator[Tensor]:
        """Logits (B, num_classes) of one exit at a time, each valid until the next call's."""
        self._features[0].copy_(images)
        for k, step in enumerate(self._steps):
            step()
            yield self._logits[k]


def _between_exits(net: AnytimeNet) -> Iterator[tuple[list[nn.Module], nn.Module]]:
    """(parts since the exit before, head) of each exit."""
    between: list[nn.Module] = [net.stem]
    for i, unit in enumerate(net.units):
        between.append(unit)
        if str(i) in net.exits:
            yield between, net.exits[str(i)]
            between = []
