"""Early exits on images: a small convolutional network with an exit after each of five layers.

CIFAR-10, at half its size and the first 3,000 images for training, so that a run takes a second;
and scikit-learn's digits where there are no other images. Validation is what the training part
holds back.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.quality.problems.problem import Fork, Metric, Problem, Session

BATCH = 100
WIDTHS = (16, 16, 24, 24, 32)
STRIDES = (2, 1, 2, 1, 2)
TRAIN, VALIDATION, TEST = 3000, 1000, 4000  # images at most


class Images(NamedTuple):
    """A part of the images."""

    x: Tensor  # shape (images, channels, height, width), standardised
    y: Tensor  # shape (images,)


@cache
def images(path: Path | None) -> dict[str, Images]:
    """Train, validation and test: of a file with x_train, y_train, x_test, y_test; or digits."""
    if path is None:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order].reshape(-1, 8, 8, 1), y[order]
        pairs = [(x[:900], y[:900]), (x[900:1200], y[900:1200]), (x[1200:], y[1200:])]
    else:
        with np.load(path) as file:
            held = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
        middle, last = TRAIN, TRAIN + VALIDATION
        held |= {f"x_{s}": halved(held[f"x_{s}"][: TEST + last]) for s in ("train", "test")}
        pairs = [
            (held["x_train"][:middle], held["y_train"][:middle]),
            (held["x_train"][middle:last], held["y_train"][middle:last]),
            (held["x_test"][:TEST], held["y_test"][:TEST]),
        ]
    mean, deviation = pairs[0][0].mean((0, 1, 2)), pairs[0][0].std((0, 1, 2))
    parts = []
    for x, y in pairs:
        standard = np.moveaxis((x - mean) / deviation, -1, 1)
        parts.append(Images(torch.tensor(standard, dtype=torch.float32), torch.tensor(y)))
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def halved(x: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The means of two by two pixels."""
    count, height, width, channels = x.shape
    found: NDArray[np.float64] = x.reshape(count, height // 2, 2, width // 2, 2, channels).mean(
        (2, 4)
    )
    return found


class Exits(Problem):
    """A cross entropy at each exit; what counts is each exit's error."""

    name = "exits"
    title = "An early-exit network on CIFAR-10, five losses"
    exits = True
    losses = tuple(f"exit {k + 1}" for k in range(len(WIDTHS)))
    metrics = tuple(Metric(f"error at exit {k + 1}, %", "%", 100.0, 1) for k in range(len(WIDTHS)))

    @property
    def statics(self) -> dict[str, tuple[float, ...]]:
        return {
            "rising from 1/4": (0.25, 0.4375, 0.625, 0.8125, 1.0),
            "half on the last": (0.25, 0.25, 0.25, 0.25, 1.0),
        }

    def __init__(self, path: Path | None = None, epochs: int = 5) -> None:
        self.path, self.epochs = path, epochs

    def session(self, seed: int) -> Session:
        return Classifier(images(self.path), seed)


class Stages(nn.Module):
    """Convolutions, each with an exit that reads its mean and its coarse map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        before = (channels, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b, stride in zip(before, WIDTHS, STRIDES, strict=True)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))
            for width in WIDTHS
        )

    def forward(self, x: Tensor, fork: Fork) -> Tensor:
        """Logits, shape (exits, images, 10)."""
        logits = []
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            branch, x = fork(stage(x), k)
            logits.append(head(branch))
        return torch.stack(logits)


class Classifier(Session):
    """The network and its images."""

    def __init__(self, parts: dict[str, Images], seed: int) -> None:
        torch.manual_seed(seed)
        self.order = np.random.default_rng(seed)
        self.parts = parts
        self.net: nn.Module = Stages(parts["train"].x.shape[1])
        self.shared = list(self.net.stages[0].parameters())  # type: ignore[index, union-attr]
        self.steps = len(parts["train"].x) // BATCH

    def epoch(self) -> Iterator[Images]:
        self.net.train()
        part = self.parts["train"]
        order = torch.tensor(self.order.permutation(len(part.x)))
        for chosen in order[: self.steps * BATCH].split(BATCH):
            yield Images(part.x[chosen], part.y[chosen])

    def losses(self, batch: Images, fork: Fork) -> tuple[list[Tensor], Tensor | None]:
        logits = self.net(batch.x, fork)
        return [F.cross_entropy(each, batch.y) for each in logits], logits

    def metrics(self, split: str) -> list[float]:
        self.net.eval()
        part = self.parts[split]
        with torch.no_grad():
            wrong = [
                (self.net(x, lambda f, _: (f, f)).argmax(-1) != y).sum(-1)
                for x, y in zip(part.x.split(500), part.y.split(500), strict=True)
            ]
        return (torch.stack(wrong).sum(0) / len(part.y)).tolist()
