"""Interleaved timing, so that what else the machine does hits all variants alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Step = Callable[[], object]
Timed = Callable[[Step, int], float]  # seconds that so many steps took, until they were done
BASE = "sum(losses)"  # what ratios of combinations are to


def on_host(wait: Step = lambda: None) -> Timed:
    """A timer by the host's clock; `wait` returns when the device has finished."""

    def timed(step: Step, inner: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(inner):
            step()
        wait()
        return time.perf_counter() - start

    return timed


def measure(
    variants: dict[str, Step], rounds: int, inner: int, timed: Timed | None = None
) -> dict[str, list[float]]:
    """Seconds of `inner` steps of each variant, per round; rounds alternate the order."""
    timed = timed or on_host()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for k in range(rounds + 2):
        for name, step in list(variants.items())[:: 1 if k % 2 else -1]:
            taken = timed(step, inner)
            if k >= 2:  # the first two rounds warm up
                seconds[name].append(taken)
    return seconds


def ratios(seconds: list[float], base: list[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(seconds, base, strict=True)]


def ratio(seconds: list[float], base: list[float]) -> str:
    """Median of the rounds' ratios, with their quartiles."""
    low, middle, high = statistics.quantiles(ratios(seconds, base), n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
