"""Our balancers beside other packages': `python -m benchmarks peers` measures docs/results/peers.md."""
