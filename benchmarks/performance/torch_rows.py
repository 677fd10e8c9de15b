"""PyTorch: a training step of each way to combine losses, and the combination alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.combining import STEPS, combinations, network_step, training_step, ways
from benchmarks.gpu.cuda import start, timer
from benchmarks.performance.rows import Options, Row, compared, tell
from benchmarks.timing import BASE

EXITS = 9
SMALL = "PyTorch, a training step of a network with 9 exits, about 1 ms"
NETWORK = "PyTorch, a training step of a reference network"
ALONE = "PyTorch, the combination alone, forward and backward"
REAL = {  # network, batch, what forward computes in
    "cpu": ("resann-3-16", 16, torch.float32),
    "cuda": ("resann-9-32", 128, torch.bfloat16),
}


def rows(options: Options) -> Iterator[Row]:
    """What tells most comes first."""
    start(options.device)
    device, timed = options.device, timer(options.device)
    steps = {name: training_step(name, EXITS, device) for name in ways(EXITS, device)}
    yield from compared(SMALL, "eager", steps, BASE, options.rounds, 20, timed)
    if not options.quick:
        compiler = partial(torch.compile, fullgraph=True)
        steps = {name: training_step(name, EXITS, device, compiler) for name in STEPS}
        yield from compared(SMALL, "compiled", steps, BASE, options.rounds, 20, timed)
    network, batch, dtype = REAL[device]
    steps = {name: network_step(name, network, batch, device, dtype) for name in STEPS}
    column = f"{network}, batch {batch}, {dtype}".replace("torch.", "")
    yield from compared(NETWORK, column, steps, BASE, max(options.rounds // 3, 3), 2, timed)
    for count in options.counts:
        inner = max(2, 400 // count)
        variants = combinations(count, device)
        yield from compared(ALONE, f"{count} losses", variants, BASE, options.rounds, inner, timed)


if __name__ == "__main__":
    tell(rows)
