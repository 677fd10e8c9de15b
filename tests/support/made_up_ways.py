"""Ways to balance that nobody publishes: each has one defect that a probe has to find."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed, nn

sys.path.append(str(Path(__file__).parents[2]))  # last: the installed package stays the one tested
from benchmarks.peers.interface import Way


class Mean(nn.Module):
    """A running mean: a buffer, of finite losses alone, over all replicas."""

    def __init__(self, count):
        super().__init__()
        self.register_buffer("mean", torch.ones(count))

    def forward(self, losses):
        return self.weighted(losses, [loss.detach() for loss in losses])

    def weighted(self, losses, values):
        with torch.no_grad():
            values = torch.stack(values)
            if distributed.is_initialized():
                distributed.all_reduce(values)
                values = values / 2
            self.mean.lerp_(torch.where(values.isfinite(), values, self.mean), 0.1)
        return (torch.stack(losses) / self.mean).sum()


class Good(Way):
    """Nothing is wrong with it."""

    def __init__(self, count, shared):
        super().__init__(count, shared)
        self.module = Mean(count)

    def combine(self, losses):
        return self.module(losses)


class Forgets(Good):
    """It saves nothing."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Refuses(Good):
    """It does not take what it saved."""

    def load_state_dict(self, state):
        raise RuntimeError("not these\nat all")


class Alone(Good):
    """Each replica follows its own losses."""

    pace = 0.1

    def combine(self, losses):
        mean = self.module.mean
        mean.lerp_(torch.stack(losses).detach(), self.pace)
        return (torch.stack(losses) / mean).sum()


class Poisoned(Alone):
    """One NaN is in its mean for ever."""


class Slow(Alone):
    """It takes a loss that is off for a small one, and is slow to see that it is not."""

    pace = 0.02


class Breaks(Good):
    """The compiler cannot follow it."""

    def combine(self, losses):
        torch._dynamo.graph_break()
        return super().combine(losses)


class Asks(Good):
    """It asks the device for each loss."""

    def combine(self, losses):
        weights = [1 / (1 + loss.item()) for loss in losses]
        return sum(w * loss for w, loss in zip(weights, losses, strict=True))


class Copies(Good):
    """It copies the losses to the host, and picks by a mask."""

    def combine(self, losses):
        stacked = torch.stack(losses)
        stacked.detach().cpu().numpy()
        return stacked[stacked > -1].sum()


def good():
    """For processes, which import it."""
    return Good


def alone():
    """Likewise."""
    return Alone
