"""Graph breaks: forward, losses and combination under torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, _dynamo

from benchmarks.peers.findings import Finding, failed
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import batches, criteria
from benchmarks.peers.training import Run

TABLE = "What runs"
BREAKS, FULL = "graph breaks", "one graph (fullgraph=True)"
STEPS = 12


def step(run: Run) -> Callable[[Tensor, Tensor], Tensor | None]:
    """What is compiled: up to the total, or to the gradients where a package makes them itself."""

    def forward(x: Tensor, y: Tensor) -> Tensor | None:
        output = run.net(x)
        losses = criteria(output, y)
        if run.way.owns_backward:
            run.way.backward(losses, output)
            return None
        return run.way.combine(losses)

    return forward


def compiled(kind: type[Way], *, fullgraph: bool) -> tuple[int, int]:
    """Trains a few steps; (how many breaks the compiler counted, how many graphs it made)."""
    run = Run(kind)
    every = batches(STEPS)
    run.step(every[0])
    _dynamo.reset()
    _dynamo.utils.counters.clear()
    call = torch.compile(step(run), backend="eager", fullgraph=fullgraph)
    for x, y in every[1:]:
        run.optimizer.zero_grad()
        total = call(x, y)
        if total is not None:
            total.backward()
        run.optimizer.step()
    counted = _dynamo.utils.counters
    return sum(counted["graph_break"].values()), counted["stats"]["unique_graphs"]


def probe(kind: type[Way]) -> Iterator[Finding]:
    """Two cells."""
    try:
        breaks, graphs = compiled(kind, fullgraph=False)
        text = str(breaks) if breaks or graphs == 1 else f"0, compiled {graphs} times"
        yield Finding(TABLE, "", BREAKS, text, breaks)
    except Exception as error:  # of any package, of any kind: that is the finding
        yield Finding(TABLE, "", BREAKS, failed(error))
    try:
        compiled(kind, fullgraph=True)
        yield Finding(TABLE, "", FULL, "yes", 1)
    except Exception as error:
        yield Finding(TABLE, "", FULL, f"no: {failed(error)}", 0)
