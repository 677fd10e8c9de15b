"""Every figure of docs/performance.md: `python -m benchmarks` measures them and prints the page."""
