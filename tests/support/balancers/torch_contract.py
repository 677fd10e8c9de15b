"""The contract of balancers as PyTorch's keeps it; needs torch."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from support.balancers.contract import GradientContract
from support.balancers.contract_forks import Pass, chain
from torch.utils.checkpoint import checkpoint

from loss_balance.backends.torch import Balancer


def convert(losses, dtype, *, requires_grad=False):
    """Floats in whatever container to scalar tensors or a vector of `dtype`."""
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype

    def one(x):
        return None if x is None else torch.tensor(x, dtype=dtype, requires_grad=requires_grad)

    if isinstance(losses, dict):
        return {name: one(x) for name, x in losses.items()}
    if isinstance(losses, np.ndarray):
        return one(losses)
    if isinstance(losses, float):
        return losses
    return type(losses)(one(x) for x in losses)


class TorchContract(GradientContract):
    wide = torch.float64

    def make(self, scheme, **options):
        return Balancer(scheme, **options)

    def step(self, balancer, losses, mask=None, dtype="float32", *, wrap=lambda x: x, **options):
        mask = None if mask is None else torch.tensor(mask)
        for name in {"priorities", "norms"} & set(options):
            options[name] = torch.tensor(options[name])
        return balancer.train()(wrap(convert(losses, dtype)), mask=mask, **options).detach()

    def gradient(self, balancer, losses, dtype="float32"):
        losses = convert(losses, dtype, requires_grad=True)
        return [g.item() for g in torch.autograd.grad(balancer.train()(losses), losses)]

    def gradient_of_square(self, balancer, x, scales):
        x = torch.tensor(x, requires_grad=True)
        balancer.train()([scale * x**2 for scale in scales]).backward()
        return x.grad.item()

    ways = ("usual", "compiled", "recomputed", "recomputed by reentry")

    def forked(self, balancer, x, heads, dtype, way, *, probe):
        balancer.train()
        x, heads = (convert(np.array(t), dtype).requires_grad_() for t in (x, heads))
        probe = torch.zeros(3, device=x.device, requires_grad=True) if probe else None

        def again(step):
            if not way.startswith("recomputed"):
                return step
            return partial(checkpoint, step, use_reentrant=way.endswith("reentry"))

        def run(x, heads):
            fork = partial(balancer.fork, probe=probe)
            losses, read = chain(fork, x, heads, torch.tanh, torch.sum, again)
            return torch.stack(losses), torch.stack(read)

        if way == "compiled":
            torch._dynamo.reset()
            run = torch.compile(run, fullgraph=True, backend="aot_eager")
        losses, read = run(x, heads)
        balancer(losses.abs())  # as in every step: moves the weights before backward
        losses.sum().backward()
        found = [losses, read, x.grad, heads.grad, None if probe is None else probe.grad]
        return Pass(*(None if t is None else t.detach().double().cpu().numpy() for t in found))

    def guided(self, balancer, logits, **options):
        logits = convert(logits, "float32").requires_grad_()
        total = balancer.guidance(logits, **options)
        total.backward()
        return total.item(), logits.grad.cpu().numpy()

    def evaluate(self, balancer, losses):
        return float(balancer.eval()(convert(losses, "float32")))

    def dtype_of(self, total):
        return str(total.dtype).removeprefix("torch.")

    def save(self, balancer, path):
        torch.save(balancer.state_dict(), path)

    def load(self, balancer, path):
        balancer.load_state_dict(torch.load(path, weights_only=True))
