"""The networks' training steps under `torch.compile`, beside their eager selves."""

from __future__ import annotations

from benchmarks.gpu import plan
from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.cuda import free, start
from benchmarks.gpu.networks_torch import train
from benchmarks.gpu.options import Options


def main(options: Options) -> int:
    """The exit status: 0 if nothing failed."""
    job = Attempts("torch-compiled", "torch", "networks", options, start(options.device), free)
    groups = plan.compiled()
    if options.smallest:
        groups = plan.smallest([groups[0], groups[2]])
    for group in groups:
        train(job, options, group)
    return job.results.finish()


if __name__ == "__main__":
    raise SystemExit(main(Options.read(__doc__, 40)))
