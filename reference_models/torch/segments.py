"""What PyTorch computes between two exits, as modules that take and return tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Segment(nn.Module):
    """Parts from one exit to the next, and its head; in evaluation mode, as the parts must be.

    Args:
        parts: shared with the network, not copied.
        head: of the exit that it ends at.
        listed: whether the first part takes a list of maps, even if only one.
        last: no segment comes after it, so it hands on no maps.
    """

    def __init__(
        self, parts: Sequence[nn.Module], head: nn.Module, *, listed: bool, last: bool
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.head = head
        self.listed, self.last = listed, last
        self.training = False

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """The maps of the segment before, or the images, to (*maps for the next one, logits)."""
        features: Any = list(maps) if self.listed else maps[0]
        for part in self.parts:
            features = part(features)
        found = tuple(features) if isinstance(features, list) else (features,)
        logits = self.head(found[-1])
        return (logits,) if self.last else (*found, logits)
