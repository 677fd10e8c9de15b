"""What every balancer promises of a long training: part of `BalancerContract`."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np

from loss_balance.experiments.verification.oracle import Oracle

STEPS, WARM = 10_000, 1_000  # after WARM the objects are counted
TRACED, WINDOW = 6_100, 1_300  # from when on memory is traced, which slows, and how often measured


def soak_losses() -> list[list[float]]:
    """Three losses of different scales that fall, rise and jump; exact in float32."""
    steps = np.arange(STEPS)
    noise = np.random.default_rng(0).lognormal(0.0, 0.5, (STEPS, 3))
    jumps = 0.01 + 0.1 * (steps % 97 == 0)
    trend = np.stack([100.0 * 0.9995**steps, 1.0 + steps / STEPS, jumps], 1)
    return (noise * trend).astype(np.float32).tolist()


class SoakContract:
    """Mixed into `BalancerContract`, whose `make` and `step` it uses."""

    a_step = 16  # bytes: no object that a step might keep is as small; PyTorch's own come to 9

    def stepping(self, balancer):
        """What makes one step of many; overridden where any training compiles it."""
        return lambda losses: self.step(balancer, losses)

    def test_ten_thousand_steps_neither_grow_nor_drift(self):
        balancer, oracle, rows = self.make(3), Oracle(3), soak_losses()
        for losses in rows:
            weights = oracle.update(losses)
        step = self.stepping(balancer)
        for losses in rows[:WARM]:
            step(losses)
        objects = counted()
        for losses in rows[WARM:TRACED]:
            step(losses)
        tracemalloc.start()
        memory = []
        for start in range(TRACED, STEPS, WINDOW):
            for losses in rows[start : start + WINDOW]:
                step(losses)
            gc.collect()
            memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert counted() - objects < (STEPS - WARM) / 50
        # What grows does so in every window; what a framework's threads free late, in some.
        grown = np.diff(memory)
        assert min(grown) < self.a_step * WINDOW, grown
        state = balancer.export_state()
        assert state["step"] == STEPS
        np.testing.assert_allclose(state["average"], oracle.average, rtol=1e-5)
        np.testing.assert_allclose(state["weights"], weights, rtol=1e-5)


def counted() -> int:
    """How many objects there are."""
    gc.collect()
    return len(gc.get_objects())
