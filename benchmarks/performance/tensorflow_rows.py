"""TensorFlow: total and gradient in a tf.function, plain and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from benchmarks.performance.rows import Options, Row, compared, tell
from benchmarks.timing import Step
from loss_balance.backends.tensorflow import Balancer

BASE = "tf.add_n(losses)"
TABLES = {
    False: "TensorFlow, in a tf.function: total and gradient",
    True: "TensorFlow, with XLA: total and gradient",
}


def steps(count: int, *, jit_compile: bool) -> dict[str, Step]:
    """A step of each way; losses apart, as a network's are."""
    leaf = tf.Variable(tf.linspace(0.5, 1.5, count))

    def step(combine: Callable[[list[Any]], Any]) -> Step:
        @tf.function(jit_compile=jit_compile)  # type: ignore[untyped-decorator]
        def call() -> Any:
            with tf.GradientTape() as tape:
                total = combine([2.0 * x for x in tf.unstack(leaf)])
            return total, tape.gradient(total, leaf)

        return lambda: call()[0].numpy()

    balance = Balancer(count)
    return {
        BASE: step(tf.add_n),
        "Balancer(AdaLoss)": step(lambda losses: balance(losses, training=True)),
    }


def rows(options: Options) -> Iterator[Row]:
    """For each number of losses up to a hundred: a thousand scalars take minutes to trace."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for jit_compile, table in TABLES.items():
        for count in (n for n in options.counts if n <= 100):
            variants = steps(count, jit_compile=jit_compile)
            yield from compared(table, f"{count} losses", variants, BASE, options.rounds, 100)


if __name__ == "__main__":
    tell(rows)
