"""What a step costs, as a ratio to sum(losses): rounds in which all ways take turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.peers.findings import Finding, failed
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import RATE, TASKS, Net, criteria
from benchmarks.timing import BASE, Step, measure, ratios

TABLE = "What a step costs"
ALONE = (4, 25)  # losses
INNER = {"convolutions": 4, "a small MLP": 20}  # steps of a round


def convolutions() -> nn.Sequential:
    """Of a small network on images of CIFAR's size."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def whole(kind: type[Way], network: str) -> Step:
    """A training step: forward, losses, backward, optimiser, and what the way asks for after."""
    net = Net(trunk=convolutions if network == "convolutions" else None)
    x = torch.randn(32, 3, 32, 32) if network == "convolutions" else torch.randn(32, 20)
    y = torch.randint(5, (32, TASKS)).float()
    way = kind(TASKS, list(net.trunk.parameters()))
    optimizer = SGD([*net.parameters(), *way.parameters()], lr=RATE * 1e-3, momentum=0.9)

    def step() -> None:
        output = net(x)
        optimizer.zero_grad()
        way.backward(criteria(output, y), output)
        optimizer.step()
        way.after_step(lambda: criteria(net(x), y))

    _begin(way, step)
    return step


def alone(kind: type[Way], count: int) -> Step:
    """Forward and backward through the combination of scalars that are there already."""
    leaf = nn.Parameter(torch.rand(1, count) + 0.1)
    way = kind(count, [leaf])

    def losses() -> list[Tensor]:
        return [x.clone() for x in leaf[0].unbind()]

    def step() -> None:
        way.backward(losses(), leaf)
        way.after_step(losses)

    _begin(way, step)
    return step


def _begin(way: Way, step: Step) -> None:
    """Two epochs of a step, for those who do nothing before there is a history."""
    for _ in range(2):
        for _ in range(2):
            step()
        way.after_epoch()


def compared(kinds: dict[str, type[Way]], rounds: int) -> Iterator[Finding]:
    """A column for each network and number of losses."""
    for network, inner in INNER.items():
        yield from _column(f"step, {network}", kinds, rounds, inner, network)
    for count in ALONE:
        yield from _column(f"{count} losses alone", kinds, rounds, 400 // count, count)


def _column(
    column: str, kinds: dict[str, type[Way]], rounds: int, inner: int, of: str | int
) -> Iterator[Finding]:
    steps: dict[str, Step] = {}
    for title, kind in kinds.items():
        try:
            steps[title] = whole(kind, of) if isinstance(of, str) else alone(kind, of)
        except Exception as error:  # of any package, of any kind: that is the finding
            yield Finding(TABLE, title, column, failed(error))
    seconds = measure(steps, rounds, inner)
    for title, each in seconds.items():
        if title == BASE:
            middle = 1e6 * statistics.median(each) / inner
            yield Finding(TABLE, title, column, f"{middle:.0f} us", middle)
            continue
        low, middle, high = statistics.quantiles(ratios(each, seconds[BASE]), n=4)
        text = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        yield Finding(TABLE, title, column, text, middle)
