"""Lines to adopt: how the loop of a way's user differs from the plain one, line by line."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Callable, Iterator

import torch
from torch.optim import SGD

from benchmarks.peers.findings import Finding, failed
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import RATE, TASKS, Net, batches, criteria, in_epochs, plain

TABLE = "What it takes to adopt"
LINES, MORE, OWN = "lines added or changed", "parameters for the optimiser", "makes the gradients"


def body(loop: Callable[..., object]) -> list[str]:
    """The lines of a loop, without its head, its docstring and blank ones."""
    lines = inspect.getsource(loop).splitlines()
    start = next(k for k, line in enumerate(lines) if line.rstrip().endswith('"""')) + 1
    inner = textwrap.dedent("\n".join(lines[start:])).splitlines()
    return [line for line in inner if line.strip() and not line.startswith("del ")]


def difference(loop: Callable[..., object]) -> list[str]:
    """The loop, each line with + where it is not one of the plain loop's; - for those that went."""
    compared = difflib.ndiff(body(plain), body(loop))
    return [line for line in compared if not line.startswith("? ")]


def by_hand(kind: type[Way]) -> torch.Tensor:
    """What the probes' own loop over the adapter makes of a network."""
    net = Net()
    way = kind(TASKS, list(net.trunk.parameters()))
    optimizer = SGD([*net.parameters(), *way.parameters()], lr=RATE)
    torch.manual_seed(7)
    for epoch in in_epochs(batches(40)):
        for x, y in epoch:
            output = net(x)
            optimizer.zero_grad()
            way.backward(criteria(output, y), output)
            optimizer.step()
            way.after_step(lambda x=x, y=y: criteria(net(x), y))  # type: ignore[misc]
        way.after_epoch()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def as_shown(kind: type[Way]) -> torch.Tensor:
    """What the loop that is shown and counted makes of it."""
    net = Net()
    torch.manual_seed(7)
    kind.loop(net, in_epochs(batches(40)), kind.make)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def probe(kind: type[Way]) -> Iterator[Finding]:
    """Three cells; the loop has to train as what is measured does, bit for bit."""
    try:
        if not torch.equal(by_hand(kind), as_shown(kind)):
            raise AssertionError("the loop that is shown trains otherwise than what is measured")
    except Exception as error:  # of any package, of any kind: that is the finding
        yield Finding(TABLE, "", LINES, failed(error))
        return
    count = sum(line.startswith("+ ") for line in difference(kind.loop))
    yield Finding(TABLE, "", LINES, str(count), count)
    learned = sum(p.numel() for p in kind(TASKS, list(Net().trunk.parameters())).parameters())
    yield Finding(TABLE, "", MORE, str(learned) if learned else "none", learned)
    yield Finding(TABLE, "", OWN, "itself" if kind.owns_backward else "backward() of a scalar")
