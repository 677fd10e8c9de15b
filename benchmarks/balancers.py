"""What the weighted sum costs in PyTorch, against `sum(losses)` and other libraries.

All variants run interleaved in one process, so that what else the machine does hits all alike; the
table shows medians of the ratio to `sum(losses)` over the rounds, with their quartiles. Absolute
times on a shared machine mean little.

    python benchmarks/balancers.py                 # CPU, one thread
    python benchmarks/balancers.py --device cuda

TorchJD's schemes join in if it is installed (`pip install torchjd`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from timing import Step, measure, ratio
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from loss_balance import AdaLoss, Constant
from loss_balance.backends.torch import Balancer


def combinations(count: int, device: str) -> dict[str, Step]:
    """One forward and backward through the combination of `count` scalar losses alone."""
    leaf = torch.rand(count, device=device).add_(0.1).requires_grad_()

    def step(combine: Callable[[list[Tensor]], Tensor]) -> Step:
        return lambda: combine([x.clone() for x in leaf.unbind()]).backward()

    def stacked(combine: Callable[[Tensor], Tensor]) -> Step:
        return lambda: combine(leaf.clone()).backward()

    variants = {
        "sum(losses)": step(sum),
        "torch.stack(losses).sum()": step(lambda losses: torch.stack(losses).sum()),
        "Balancer(AdaLoss)": step(Balancer(AdaLoss(count)).to(device)),
        "Balancer(Constant)": step(Balancer(Constant(count)).to(device)),
        "Balancer(AdaLoss), stacked losses": stacked(Balancer(AdaLoss(count)).to(device)),
    }
    return variants | {name: step(peer) for name, peer in peers(count, device)}


def peers(count: int, device: str) -> Iterator[tuple[str, Callable[[list[Tensor]], Tensor]]]:
    """Schemes of TorchJD that need the losses alone, as its users call them."""
    try:
        from torchjd import scalarization
    except ImportError:
        return
    for name, arguments in (("DWA", ()), ("UW", (count,)), ("GeometricMean", ())):
        if hasattr(scalarization, name):
            peer = getattr(scalarization, name)(*arguments)
            if isinstance(peer, nn.Module):
                peer = peer.to(device)
            yield f"torchjd {name}", lambda losses, peer=peer: peer(torch.stack(losses))


def training_steps(exits: int, device: str, *, compiled: bool) -> dict[str, Step]:
    """A whole step of a small network with an exit after each layer: a worst case, about 1 ms."""
    variants = {}
    for name in ("sum(losses)", "Balancer(AdaLoss)", "Balancer(AdaLoss), stacked losses"):
        variants[name] = _training_step(name, exits, device, compiled=compiled)
    return variants


def _training_step(name: str, exits: int, device: str, *, compiled: bool) -> Step:
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(exits)).to(device)
    heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(exits)).to(device)
    balance = Balancer(AdaLoss(exits)).to(device)
    parameters = [*layers.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    x, y = torch.randn(64, 64, device=device), torch.randint(10, (64,), device=device)

    def loss() -> Tensor:
        logits, h = [], x
        for layer, head in zip(layers, heads, strict=True):
            h = layer(h).relu()
            logits.append(head(h))
        if name.endswith("stacked losses"):
            each = F.cross_entropy(torch.cat(logits), y.repeat(exits), reduction="none")
            return balance(each.view(exits, -1).mean(1))
        losses = [F.cross_entropy(z, y) for z in logits]
        return sum(losses) if name == "sum(losses)" else balance(losses)

    forward = torch.compile(loss, fullgraph=True) if compiled else loss

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    return step


def _measure(
    variants: dict[str, Step], rounds: int, inner: int, device: str
) -> dict[str, list[float]]:
    return measure(variants, rounds, inner, torch.cuda.synchronize if device == "cuda" else _done)


def _done() -> None:
    """A CPU has finished when the call returns."""


def show(console: Console, title: str, columns: dict[str, dict[str, list]]) -> None:
    """A row per variant, a column per setting: median ratio to the first row, and quartiles."""
    table = Table(title=title, title_justify="left")
    table.add_column("ratio to sum(losses)")
    for column in columns:
        table.add_column(column, justify="right")
    for name in next(iter(columns.values())):
        table.add_row(
            name, *(ratio(seconds[name], seconds["sum(losses)"]) for seconds in columns.values())
        )
    console.print(table)


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 30,
    compiled: Annotated[bool, typer.Option(help="The whole step under torch.compile too.")] = True,
) -> None:
    """Prints the cost of balancing as ratios to sum(losses)."""
    torch.set_num_threads(1)
    console = Console(width=120)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread"
    console.print(f"torch {torch.__version__}, {name}, {rounds} rounds")
    hot = {
        f"{n} losses": _measure(combinations(n, device), rounds, 50, device) for n in (4, 9, 25, 75)
    }
    show(console, "The combination alone, forward and backward", hot)
    steps = {"eager": _measure(training_steps(9, device, compiled=False), rounds, 20, device)}
    if compiled:
        steps["compiled"] = _measure(training_steps(9, device, compiled=True), rounds, 20, device)
    show(console, "A whole training step, 9 exits", steps)


if __name__ == "__main__":
    typer.run(main)
