"""One training: a problem, a way, a learning rate, a seed."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import get_total_norm

from benchmarks.peers.interface import Way
from benchmarks.quality.methods import Make
from benchmarks.quality.problems.problem import Problem, Session, forked_nowhere


def train(problem: Problem, make: Make, rate: float, seed: int, split: str) -> list[float] | None:
    """The metrics on `split` after training with Adam, the rate falling as a cosine to 0.

    None where a gradient or a metric is not finite: it diverged.
    """
    session = problem.session(seed)
    steps = problem.epochs * session.steps
    way = make(session, len(problem.losses), steps)
    learned = [*session.net.parameters(), *way.parameters()]
    optimizer = torch.optim.Adam(learned, rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(problem.epochs):
        for batch in session.epoch():
            if not step(session, way, batch, optimizer, learned):
                return None
            schedule.step()
        way.after_epoch()
    found = session.metrics(split)
    return found if all(map(math.isfinite, found)) else None


def step(
    session: Session,
    way: Way,
    batch: object,
    optimizer: torch.optim.Optimizer,
    learned: list[nn.Parameter],
) -> bool:
    """One batch; whether all gradients were finite."""
    losses, output = session.losses(batch, getattr(way, "fork", forked_nowhere))
    optimizer.zero_grad()
    way.backward(losses, torch.zeros(()) if output is None else output)
    norm = get_total_norm([p.grad for p in learned if p.grad is not None])
    if not math.isfinite(float(norm)):
        return False
    optimizer.step()
    way.after_step(lambda: session.losses(batch, forked_nowhere)[0])
    return True
