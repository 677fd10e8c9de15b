"""What PyTorch computes between two exits, as modules that take and return tensors alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from loss_balance.reference_models.torch.stages import Stage


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
        self.parts: nn.ModuleList = nn.ModuleList(parts)
        self.head = head
        self.listed: bool = listed
        self.last: bool = last
        self.training = False

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """The maps of the segment before, or the images, to (*maps for the next one, logits)."""
        features: Any = list(maps) if self.listed else maps[0]
        for part in self.parts:
            features = part(features)
        found = tuple(features) if isinstance(features, list) else (features,)
        logits = self.head(found[-1])
        return (logits,) if self.last else (*found, logits)


class OwnSegment(nn.Module):
    """One stretch of a network with exits and the head at its end, sharing their modules."""

    def __init__(self, net: Any, stage: Stage, head: nn.Module | None) -> None:
        super().__init__()
        self.backbone: Any = net.backbone
        self.head: nn.Module | None = head
        self.stage: Stage = stage
        self.training: bool = net.training

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """(*what is handed on, logits); of the last one the logits alone."""
        reached = self.stage(self, *tensors)
        return reached if self.head is None else (*reached, self.head(reached[0]))

    def parameters_used(self) -> Iterator[nn.Parameter]:
        """Those of this stretch and its head."""
        for name in self.stage.uses:
            *path, last = name.split(".")
            found = getattr(self.backbone.get_submodule(".".join(path)), last)
            if isinstance(found, nn.Module):
                yield from found.parameters()
            elif isinstance(found, nn.Parameter):
                yield found
        if self.head is not None:
            yield from self.head.parameters()
