"""The networks in PyTorch: training steps, and stopping at batch 1."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu import plan, stopping_rows, training_rows, training_torch
from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.cuda import free, start, timer
from benchmarks.gpu.options import Options
from benchmarks.gpu.segments import Segments
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.torch import AnytimeNet


def train(job: Attempts, options: Options, group: plan.Group) -> None:
    """A group's training steps."""
    torch.compiler.reset()
    build = partial(training_torch.build, options)
    training_rows.run(job, group, build, timer(options.device), smallest=options.smallest)


@torch.inference_mode()
def stop(job: Attempts, options: Options, spec: AnytimeSpec) -> None:
    """Stopping one network, in float32 (TF32 on a GPU): eager, and by segments."""
    height, width, channels = spec.input_shape
    most = 3 if options.smallest else 200
    net = AnytimeNet(spec).to(options.device).eval()
    x = torch.randn(1, channels, height, width, device=options.device)
    stopping_rows.add_rows(job, spec.name, "eager", net.anytime, net, x, most)
    graphs = options.device == "cuda"
    segments = Segments(net, x, graphs=graphs)
    way = "segments as CUDA graphs" if graphs else "segments, eager"
    stopping_rows.add_rows(job, spec.name, way, segments.anytime, net, x, most)


def main(options: Options) -> int:
    """Eager training steps and stopping, in order of what they tell; the exit status."""
    job = Attempts("torch", "torch", "networks", options, start(options.device), free)
    groups = plan.eager()
    if options.smallest:
        groups = plan.smallest(groups)
    stopped = plan.stopping(smallest=options.smallest)
    for i, group in enumerate(groups):
        train(job, options, group)
        for spec in stopped[i : i + 1]:
            job.attempt(f"{spec.name}, stopping", partial(stop, job, options, spec), 15.0)
    return job.results.finish()


if __name__ == "__main__":
    raise SystemExit(main(Options.read(__doc__, 65)))
