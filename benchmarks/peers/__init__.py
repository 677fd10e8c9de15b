"""Our balancers beside other packages': `python -m benchmarks peers` writes docs/results/peers.md."""
