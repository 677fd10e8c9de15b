"""JAX: total and gradient in one compiled call, over a call that hands a state through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.performance.rows import Options, Row, compared, tell
from benchmarks.timing import BASE, Step, measure, on_host, ratios
from loss_balance import AdaLoss
from loss_balance.backends.jax import balance, init

EXITS = 9
STEP = "JAX, a compiled training step of a network with 9 exits"
CALL = "JAX, total and gradient under jit, over a state passed through"
COMPILING = "JAX, what compiling a step takes, milliseconds"
STACKED = "jnp.sum, stacked losses"
WAYS: dict[str, tuple[Callable[..., Any], str]] = {  # and what each is compared with
    BASE: (lambda losses, state, _: (sum(list(losses)), state), BASE),
    "balance(AdaLoss)": (lambda losses, state, n: balance(list(losses), state, n), BASE),
    STACKED: (lambda losses, state, _: (jnp.sum(losses), state), STACKED),
    "balance(AdaLoss), stacked losses": (balance, STACKED),
}


def compiled(name: str, count: int) -> tuple[Any, Any]:
    """(the step, lowered and compiled; what it begins with)."""
    scheme, combine = AdaLoss(count), WAYS[name][0]

    def step(losses: Any, state: Any) -> Any:
        def total(scales: Any) -> Any:
            return combine(scales * losses, state, scheme)

        (value, state_), gradient = jax.value_and_grad(total, has_aux=True)(jnp.ones(count))
        return value, gradient, state_

    arguments = (jnp.linspace(0.5, 1.5, count), init(scheme))
    return jax.jit(step).lower(*arguments).compile(), arguments


def steps(count: int) -> dict[str, Step]:
    """A step of each way, which waits for its result as a loop that logs does."""
    made: dict[str, Step] = {}
    for name in WAYS:
        call, (losses, state) = compiled(name, count)
        held = [state]

        def step(call: Any = call, losses: Any = losses, held: list[Any] = held) -> None:
            value, _, held[0] = call(losses, held[0])
            value.block_until_ready()

        made[name] = step
    return made


def training_step(*, balanced: bool) -> Step:
    """A whole step of a small network with an exit after each layer, donated and compiled."""
    keys = iter(jax.random.split(jax.random.key(0), 2 * EXITS + 2))
    layers = [0.1 * jax.random.normal(next(keys), (64, 64)) for _ in range(EXITS)]
    heads = [0.1 * jax.random.normal(next(keys), (64, 10)) for _ in range(EXITS)]
    x, y = jax.random.normal(next(keys), (64, 64)), jax.random.randint(next(keys), 64, 0, 10)
    optimizer = optax.sgd(0.01, momentum=0.9)

    def total(parameters: Any, state: Any) -> Any:
        losses, h = [], x
        for layer, head in zip(*parameters, strict=True):
            h = jax.nn.relu(h @ layer)
            each = optax.softmax_cross_entropy_with_integer_labels(h @ head, y)
            losses.append(each.mean())
        return balance(losses, state, EXITS) if balanced else (sum(losses), state)

    @partial(jax.jit, donate_argnums=0)
    def step(carried: Any) -> Any:
        parameters, moments, state = carried
        (value, state), gradients = jax.value_and_grad(total, has_aux=True)(parameters, state)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(parameters, updates), moments, state), value

    parameters = (layers, heads)
    carried = [(parameters, optimizer.init(parameters), init(EXITS))]

    def call() -> None:
        carried[0], value = step(carried[0])
        value.block_until_ready()

    return call


def seconds_to_compile(name: str) -> float:
    """From nothing: traced, lowered and compiled."""
    jax.clear_caches()  # type: ignore[no-untyped-call]
    begun = time.perf_counter()
    compiled(name, 9)
    return time.perf_counter() - begun


def rows(options: Options) -> Iterator[Row]:
    """Ratios and what a step takes more, for each number of losses; then compiling."""
    variants = {name: training_step(balanced=name != BASE) for name in (BASE, "balance(AdaLoss)")}
    yield from compared(STEP, "jit", variants, BASE, options.rounds, 50)
    for count in options.counts:
        seconds = measure(steps(count), options.rounds, 200, on_host())
        column = f"{count} losses"
        for name, (_, base) in WAYS.items():
            pairs = list(zip(seconds[name], seconds[base], strict=True))
            if name == base:
                each = [1e6 * a / 200 for a, _ in pairs]
                yield Row.of(CALL, f"{name}, microseconds", column, each)
                continue
            yield Row.of(CALL, name, column, ratios(seconds[name], seconds[base]))
            more = [1e6 * (a - b) / 200 for a, b in pairs]
            yield Row.of(CALL, f"{name}, microseconds more", column, more)
    taken: dict[str, list[float]] = {name: [] for name in (BASE, "balance(AdaLoss)")}
    for _ in range(max(3, options.rounds // 6)):
        for name, found in taken.items():
            found.append(1e3 * seconds_to_compile(name))
    pairs = list(zip(taken["balance(AdaLoss)"], taken[BASE], strict=True))
    yield Row.of(COMPILING, BASE, "9 losses", taken[BASE])
    yield Row.of(COMPILING, "balance(AdaLoss), more", "9 losses", [a - b for a, b in pairs])


if __name__ == "__main__":
    tell(rows)
