"""AdaLoss in plain Python scalars: shares no code with the package, so it can disagree with it."""

from __future__ import annotations

import math


class Oracle:
    """One loss at a time, one `if` per rule of the contract."""

    def __init__(
        self, n, gamma=0.05, decay=0.99, final_weight=1.0, update_every=1, floor=1e-8
    ) -> None:
        self.n, self.decay, self.update_every, self.floor = n, decay, update_every, floor
        self.gamma = gamma if callable(gamma) else lambda _: gamma
        self.p = [1.0] * (n - 1) + [final_weight]
        self.average = [None] * n  # None: not seen yet
        self.weights = [1.0] * n
        self.skipped = [0] * n
        self.step = 0

    def update(self, losses: list[float | None]) -> list[float]:
        """`losses`: one per loss, None where absent. Returns the weights."""
        bad = [x is not None and not (math.isfinite(x) and x >= 0) for x in losses]
        for i, x in enumerate(losses):
            if bad[i]:
                self.skipped[i] += 1
            elif x is not None:
                a = self.average[i]
                self.average[i] = x if a is None else self.decay * a + (1 - self.decay) * x
        gamma = self.gamma(self.step)
        self.step += 1
        if self.step % self.update_every == 0:
            active = [i for i, a in enumerate(self.average) if a is not None and a > self.floor]
            alpha = min((self.average[i] / self.p[i] for i in active), default=None)
            for i in range(self.n):
                if bad[i]:
                    continue
                if i in active:
                    adaptive = alpha * self.p[i] / self.average[i]
                    self.weights[i] = (1 - gamma) * adaptive + gamma
                else:
                    self.weights[i] = 1.0
        return list(self.weights)
