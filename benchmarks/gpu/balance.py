"""What combining losses costs on the device, beside `sum(losses)`: PyTorch, then JAX.

python -m benchmarks.gpu.balance --out DIR --device cuda --seconds 60
"""

from __future__ import annotations

from benchmarks.gpu.jobs import Job, supervise
from benchmarks.gpu.options import Options

JOBS = (
    Job("torch", "torch", "benchmarks.gpu.balance_torch", share=0.7),
    Job("jax", "jax", "benchmarks.gpu.balance_jax", share=1.0),
)

if __name__ == "__main__":
    raise SystemExit(supervise("balance", Options.read(__doc__, 60), JOBS))
