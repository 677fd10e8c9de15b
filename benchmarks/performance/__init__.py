"""Every figure of docs/results/performance.md: `python -m benchmarks` measures and prints it."""
