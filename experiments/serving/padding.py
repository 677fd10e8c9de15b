"""Networks that are compiled anew for each batch size, used with a few sizes only."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.serving.requests import Network


class Padded:
    """The network, which sees batches of the given sizes only: the last image is repeated.

    What is sent to it goes on to the network, which has to see to its own sizes then (JAX's does).

    Args:
        network: computes.
        sizes: ascending; the last one is the largest batch that may come.
    """

    def __init__(self, network: Network, sizes: tuple[int, ...]) -> None:
        self._network, self._sizes = network, sizes

    def warm_up(self, images: NDArray[np.float32]) -> None:
        """Computes all that may come: each size from the start, and left for each smaller one.

        Args:
            images: as many as the largest batch has.
        """
        for size in self._sizes:
            exits = sum(1 for _ in self.anytime(images[:size]))
            for fewer in (each for each in self._sizes if each < size):
                for left_at in range(exits - 1):
                    answers = self.anytime(images[:size])
                    for _ in range(left_at + 1):
                        next(answers)
                    answers.send(np.arange(fewer))
                    answers.close()

    def anytime(self, images: NDArray[np.float32]) -> Generator[NDArray[Any], Any, None]:
        """As the network's own."""
        number = len(images)
        size = next(size for size in self._sizes if size >= number)
        repeated = np.concatenate([images, np.repeat(images[-1:], size - number, axis=0)])
        kept = None
        with closing(self._network.anytime(repeated)) as answers:
            while True:
                try:
                    logits = answers.send(kept)
                except StopIteration:
                    return
                kept = yield logits[:number]
                number = number if kept is None else len(kept)
