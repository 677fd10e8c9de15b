"""PyTorch: a training step of each way to combine losses, and the combination alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.combining import STEPS, combinations, network_step, training_step, ways
from benchmarks.dispatches import Dispatches
from benchmarks.gpu.cuda import start, timer
from benchmarks.performance.rows import Options, Row, compared, tell
from benchmarks.timing import BASE
from loss_balance import AdaLoss, Constant, Scheme
from loss_balance.backends.torch import Balancer

EXITS = 9
SMALL = "PyTorch, a small training step: 9 exits, about 1 ms"
OPERATORS = "PyTorch, operators of a balanced step, forward and backward"
NETWORK = "PyTorch, a training step of a reference network"
ALONE = "PyTorch, the combination alone, forward and backward"
REAL = {  # network, batch, what forward computes in
    "cpu": ("resann-3-16", 16, torch.float32),
    "cuda": ("resann-9-32", 128, torch.bfloat16),
}


def operators(scheme: Scheme, device: str, *, stacked: bool) -> int:
    """How many operators that compute a second step takes, the gradient's first 1 left out."""
    balance, leaf = Balancer(scheme).to(device), torch.ones(9, device=device, requires_grad=True)
    losses = leaf if stacked else list(leaf.unbind())
    torch.autograd.grad(balance(losses), losses)
    with Dispatches() as seen:
        torch.autograd.grad(balance(losses), losses)
    return len(seen.kernels) - 1


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
    for name, scheme in {"AdaLoss": AdaLoss(9), "Constant": Constant(9)}.items():
        for stacked, row in ((False, "9 losses in a list"), (True, "9 losses stacked")):
            yield Row.of(OPERATORS, row, name, [operators(scheme, device, stacked=stacked)])
    for count in options.counts:
        inner = max(2, 400 // count)
        variants = combinations(count, device, ways)
        yield from compared(ALONE, f"{count} losses", variants, BASE, options.rounds, inner, timed)


if __name__ == "__main__":
    tell(rows)
