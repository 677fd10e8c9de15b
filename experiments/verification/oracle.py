"""AdaLoss in plain Python scalars: shares no code with the package, so it can disagree with it."""

from __future__ import annotations

import math
from collections.abc import Callable


class Oracle:
    """One loss at a time, one `if` per rule of the contract."""

    def __init__(
        self,
        n: int,
        gamma: float | Callable[[int], float] = 0.05,
        decay: float = 0.99,
        final_weight: float = 1.0,
        update_every: int = 1,
        floor: float = 1e-8,
        clip: float | None = None,
        warmup: int = 0,
    ) -> None:
        self.n: int = n
        self.decay: float = decay
        self.update_every: int = update_every
        self.floor: float = floor
        self.clip: float | None = clip
        self.warmup: int = warmup
        self.values: list[int] = [0] * n  # how many each average has seen
        self.gamma = gamma
        self.p: list[float] = [1.0] * (n - 1) + [final_weight]
        self.average: list[float | None] = [None] * n  # None: not seen yet
        self.weights: list[float] = [1.0] * n
        self.skipped: list[int] = [0] * n
        self.step: int = 0

    def update(self, losses: list[float | None]) -> list[float]:
        """`losses`: one per loss, None where absent. Returns the weights."""
        bad = [x is not None and not (math.isfinite(x) and x >= 0) for x in losses]
        for i, x in enumerate(losses):
            if bad[i]:
                self.skipped[i] += 1
            elif x is not None and x > self.floor:  # at or below it a loss is off
                self._average(i, x)
        gamma = self.gamma(self.step) if callable(self.gamma) else self.gamma
        self.step += 1
        if self.step % self.update_every == 0:
            self._weigh(gamma, bad)
        return list(self.weights)

    def _average(self, i: int, x: float) -> None:
        a = self.average[i]
        self.values[i] += 1
        if a is None:
            self.average[i] = x
            return
        if self.clip is not None and x > self.clip * a:
            x = self.clip * a
        n = self.values[i]
        self.average[i] = (
            (a * (n - 1) + x) / n if n <= self.warmup else self.decay * a + (1 - self.decay) * x
        )

    def _weigh(self, gamma: float, bad: list[bool]) -> None:
        active = {i: a for i, a in enumerate(self.average) if a is not None}
        alpha = min((a / self.p[i] for i, a in active.items()), default=0.0)
        for i in range(self.n):
            if bad[i]:
                continue
            self.weights[i] = 1.0
            if i in active:
                self.weights[i] = (1 - gamma) * alpha * self.p[i] / active[i] + gamma
