"""Every figure of docs/results/performance.md: `python -m benchmarks` measures them and prints the page."""
