"""Our balancers beside other packages': `python -m benchmarks peers` measures docs/peers.md."""
