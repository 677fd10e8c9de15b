"""A training step in PyTorch as a user would write it: bfloat16 by autocast, channels_last."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.attempts import Unavailable
from benchmarks.gpu.cuda import Memory, compiling, graphed
from benchmarks.gpu.options import Options
from benchmarks.gpu.plan import FLOPS, Group, Trial
from benchmarks.gpu.training_rows import Built
from benchmarks.timing import Step
from loss_balance import AdaLoss
from loss_balance.backends.torch import Balancer
from loss_balance.experiments.training.learners.torch import exit_losses
from loss_balance.reference_models.torch import AnytimeNet


def build(options: Options, group: Group, trial: Trial) -> Built:
    """The step, after its first runs."""
    if trial.mode == "CUDA graph" and options.device != "cuda":
        raise Unavailable("no CUDA device")
    memory = Memory(options.device)
    step, multiply_adds = _step(options, group, trial)
    begun = time.perf_counter()
    step()
    if options.device == "cuda":
        torch.cuda.synchronize()
    first_s = time.perf_counter() - begun
    step()
    if trial.mode == "CUDA graph":
        step = graphed(step)
        step()
    return Built(step, multiply_adds, memory.peak_mib(), first_s)


def _step(options: Options, group: Group, trial: Trial) -> tuple[Step, int]:
    """(forward, losses, backward and SGD on one batch, multiply-adds per image)."""
    spec = group.spec() if trial.exits == "all" else group.spec().single_exit(-1)
    height, width, channels = spec.input_shape
    device = options.device
    net: Any
    if trial.peer:
        net = _peer(trial.peer).to(device)
        one = torch.zeros(1, channels, height, width, device=device)
        multiply_adds = _counted(net, one)
    else:
        net = AnytimeNet(spec, checkpoint=trial.checkpoint).to(device)
        multiply_adds = spec.costs()[-1].multiply_adds
    net.to(memory_format=torch.channels_last).train()
    images = torch.randn(group.batch, channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(spec.num_classes, (group.batch,), device=device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    balance = None
    if trial.exits == "all" and not trial.peer:
        balance = Balancer(AdaLoss(len(spec.exits))).to(device)

    def loss() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            logits = net(images)
        stacked = torch.stack(logits) if balance else _only(logits)[None]
        losses = exit_losses(stacked.float(), labels).mean(dim=1)
        total: Tensor = balance(losses) if balance else losses[0]
        return total

    forward = loss
    if trial.mode == "compiled":
        forward = torch.compile(loss, **compiling(smallest=options.smallest))
    elif trial.mode == "compiled by unit":
        for unit in net.units:
            unit.compile(**compiling(smallest=options.smallest))

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step, multiply_adds


def _only(logits: Any) -> Tensor:
    """The logits of a network of one exit, or of timm's."""
    only: Tensor = logits if isinstance(logits, Tensor) else logits[0]
    return only


def _peer(name: str) -> nn.Module:
    try:
        import timm  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise Unavailable("timm is not installed") from None
    made: nn.Module = timm.create_model(name)
    return made


def _counted(net: nn.Module, image: Tensor) -> int:
    """Multiply-adds of a forward pass, by PyTorch's own count."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(image)
    return int(counter.get_total_flops()) // FLOPS
