"""What a scan of a digit is, and what can be measured on it: four losses, each in its own unit.

scikit-learn's digits. Beside the class the network says how much ink there is (grey levels, summed
over the image), where its centre lies (pixels) and what the image is (grey levels, by way of the
same 16 numbers that all heads read). Heads speak the natural units, as a first script has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.quality.problems.problem import Fork, Metric, Problem, Session

BATCH = 50


class Scans(NamedTuple):
    """A part of the digits."""

    x: Tensor  # shape (scans, 64), grey levels from 0 to 16
    label: Tensor  # shape (scans,)
    ink: Tensor  # shape (scans, 1)
    centre: Tensor  # shape (scans, 2)


@cache
def scans() -> dict[str, Scans]:
    """Train, validation and test, drawn once."""
    from sklearn.datasets import load_digits

    x, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, label = x[order], label[order]
    ink = x.sum(1, keepdims=True)
    rows, columns = np.divmod(np.arange(64), 8)
    centre = x @ np.stack((rows, columns), 1) / ink
    ends = {"train": slice(0, 900), "validation": slice(900, 1200), "test": slice(1200, None)}
    return {
        name: Scans(_tensor(x[s]), torch.tensor(label[s]), _tensor(ink[s]), _tensor(centre[s]))
        for name, s in ends.items()
    }


class Measures(Problem):
    """A cross entropy in nats, and squared errors in three units."""

    name = "measures"
    title = "Digits: class, ink, centre and image, four losses in four units"
    losses = ("class", "ink", "centre", "image")
    metrics = (
        Metric("class, error %", "%", 100.0, 1),
        Metric("ink, grey levels", digits=1),
        Metric("centre, pixels"),
        Metric("image, grey levels"),
    )

    def __init__(self, epochs: int = 20) -> None:
        self.epochs = epochs

    @property
    def statics(self) -> dict[str, tuple[float, ...]]:
        part = scans()["train"]
        squares = [float((y - y.mean(0)).square().mean()) for y in (part.ink, part.centre, part.x)]
        powers = {"1 / deviation": 0.5, "1 / variance": 1.0}
        found = {}
        for name, power in powers.items():
            weights = [1.0, *(s**-power for s in squares)]
            found[name] = tuple(w / max(weights) for w in weights)
        return found

    def session(self, seed: int) -> Session:
        return Measuring(seed)


class Measuring(Session):
    """Two shared layers, 16 numbers, and a linear head a task."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.order = np.random.default_rng(seed)
        trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())
        self.net = nn.Sequential(trunk, nn.Linear(16, 10 + 1 + 2 + 64))
        self.shared = list(trunk.parameters())
        self.steps = len(scans()["train"].x) // BATCH

    def epoch(self) -> Iterator[Scans]:
        part = scans()["train"]
        order = torch.tensor(self.order.permutation(len(part.x)))
        for chosen in order[: self.steps * BATCH].split(BATCH):
            yield Scans(*(each[chosen] for each in part))

    def losses(self, batch: Scans, fork: Fork) -> tuple[list[Tensor], Tensor | None]:
        del fork
        output = self.net(batch.x / 16.0)
        label, *measured = self._by_task(output)
        truth = (batch.ink, batch.centre, batch.x)
        errors = [F.mse_loss(said, true) for said, true in zip(measured, truth, strict=True)]
        return [F.cross_entropy(label, batch.label), *errors], output

    def metrics(self, split: str) -> list[float]:
        part = scans()[split]
        with torch.no_grad():
            label, *measured = self._by_task(self.net(part.x / 16.0))
        truth = (part.ink, part.centre, part.x)
        wrong = (label.argmax(1) != part.label).float().mean()
        errors = [F.mse_loss(said, true).sqrt() for said, true in zip(measured, truth, strict=True)]
        return [float(wrong), *map(float, errors)]

    @staticmethod
    def _by_task(output: Tensor) -> tuple[Tensor, ...]:
        return output.split((10, 1, 2, 64), dim=1)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
