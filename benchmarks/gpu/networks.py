"""What training and stopping the networks takes on the device, in PyTorch and in JAX.

python -m benchmarks.gpu.networks --out DIR --device cuda --seconds 150
"""

from __future__ import annotations

from benchmarks.gpu.jobs import Job, supervise
from benchmarks.gpu.options import Options

JOBS = (
    Job("torch", "torch", "benchmarks.gpu.networks_torch", share=0.6),
    Job("jax", "jax", "benchmarks.gpu.networks_jax", share=0.5),
    Job("torch-compiled", "torch", "benchmarks.gpu.networks_compiled", share=1.0),
)

if __name__ == "__main__":
    raise SystemExit(supervise("networks", Options.read(__doc__, 150), JOBS))
