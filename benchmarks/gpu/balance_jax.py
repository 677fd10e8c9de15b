"""What combining losses costs in JAX, compiled: a call at a time, and many steps in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.balance_rows import COUNTS, Repeats, add_rows
from benchmarks.gpu.options import Options
from benchmarks.timing import BASE, Step, on_host
from loss_balance import AdaLoss, Constant, Scheme
from loss_balance.backends.jax import balance, init

STEPS = 100  # in one call: what the device takes, for a call costs the host far more
Combine = Callable[[Array, Any], tuple[Array, Any]]  # (losses, state) to (total, state)


def combinations(count: int) -> dict[str, tuple[Combine, Any]]:
    """Ways to combine a vector of `count` losses, each with its first state.

    In a list the losses are apart, as a network's are; XLA may put them together again.
    """

    def balanced(scheme: Scheme, *, stacked: bool) -> tuple[Combine, Any]:
        def combine(losses: Array, state: Any) -> tuple[Array, Any]:
            return balance(losses if stacked else list(losses), state, scheme)

        return combine, init(scheme)

    return {
        BASE: (lambda losses, state: (sum(list(losses)), state), ()),
        "jnp.sum, stacked losses": (lambda losses, state: (jnp.sum(losses), state), ()),
        "balance(AdaLoss)": balanced(AdaLoss(count), stacked=False),
        "balance(Constant)": balanced(Constant(count), stacked=False),
        "balance(AdaLoss), stacked losses": balanced(AdaLoss(count), stacked=True),
    }


class Calls:
    """`steps` times total and gradient, in one compiled call that goes on from the last one.

    The gradient moves the losses, so that no step can be left out.
    """

    def __init__(self, combine: Combine, state: Any, count: int, steps: int) -> None:
        def step(carried: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            losses, state = carried
            gradient, state = jax.grad(combine, has_aux=True)(losses, state)
            return (jnp.abs(losses - 1e-3 * gradient), state), None

        @partial(jax.jit, donate_argnums=0)
        def call(carried: tuple[Array, Any]) -> tuple[Array, Any]:
            return step(carried, None)[0] if steps == 1 else lax.scan(step, carried, None, steps)[0]

        self.carried = jax.device_put((jnp.linspace(0.5, 1.5, count), state))
        self.call = call

    def __call__(self) -> None:
        self.carried = self.call(self.carried)

    def wait(self) -> object:
        """Waits until the device has finished."""
        return jax.block_until_ready(self.carried)  # type: ignore[no-untyped-call]


def tell(job: Attempts, options: Options, count: int, steps: int) -> None:
    """The rows for `count` losses."""
    repeats = Repeats(2, 1) if options.smallest else Repeats(20, 100 if steps == 1 else 5)
    variants: dict[str, Step] = {
        name: Calls(combine, state, count, steps)
        for name, (combine, state) in combinations(count).items()
    }
    mode = "a call per step" if steps == 1 else f"{STEPS} steps per call"
    table = "jax combination"
    add_rows(job.results, table, variants, repeats, _timed, steps=steps, losses=count, mode=mode)


def _timed(step: Any, inner: int) -> float:
    return on_host(step.wait)(step, inner)


def main(options: Options) -> int:
    """The exit status: 0 if nothing failed."""
    job = Attempts("jax", "jax", "balance", options, jax.devices()[0].device_kind)
    for count in COUNTS[: 1 if options.smallest else None]:
        for steps in (1, STEPS):
            name = f"{count} losses, {steps} steps per call"
            job.attempt(name, partial(tell, job, options, count, steps), 15.0)
    return job.results.finish()


if __name__ == "__main__":
    raise SystemExit(main(Options.read(__doc__, 18)))
