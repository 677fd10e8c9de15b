"""Interleaved timing, so that what else the machine does hits all variants alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Step = Callable[[], object]


def measure(
    variants: dict[str, Step], rounds: int, inner: int, wait: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of `inner` steps of each variant, per round; rounds alternate the order.

    `wait` returns when the device has finished.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for k in range(rounds + 2):
        for name, step in list(variants.items())[:: 1 if k % 2 else -1]:
            wait()
            start = time.perf_counter()
            for _ in range(inner):
                step()
            wait()
            if k >= 2:  # the first two rounds warm up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: list[float], base: list[float]) -> str:
    """Median of the rounds' ratios, with their quartiles."""
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
