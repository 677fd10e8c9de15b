"""Our balancers beside others': `python -m benchmarks peers` writes docs/results/peers.md."""
