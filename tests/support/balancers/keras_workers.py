"""One of two workers under MultiWorkerMirroredStrategy: `python keras_workers.py FOLDER`.

Writes INDEX.npz: the weights of each step while losses differ, and what single workers read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before TensorFlow is used
from support.balancers.replica_steps import SCHEME, TWO, numbers

from loss_balance.backends.tensorflow import Balancer

INDEX = strategy.cluster_resolver.task_id


def spread(array: np.ndarray) -> Any:
    """This worker's row."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(array[context.replica_id_in_sync_group])
    )


def stepping(balance: Balancer, **static: Any) -> Any:
    """A compiled call on the losses of each, giving the weights used."""

    @tf.function
    def step(losses: Any, mask: Any) -> Any:
        def replica(losses: Any, mask: Any) -> Any:
            balance(losses, mask=mask, **static)
            return balance.loss_weights

        return strategy.run(replica, args=(losses, mask))

    return lambda rows: np.array(step(*map(spread, numbers(rows))))


def main(folder: Path) -> None:
    with strategy.scope():
        balance, waiting = Balancer(SCHEME), Balancer(SCHEME, accumulate=2)
    step = stepping(balance)
    found: dict[str, Any] = {"steps": [step(rows) for rows in TWO[:3]]}
    if INDEX == 0:  # alone, while the other is on its way to the next step
        found |= {"alone": list(balance.metrics().values())}
        balance.export_state()
        tf.train.Checkpoint(balance=balance).save(folder / "alone")
    found["steps"] += [step(rows) for rows in TWO[3:]]
    before = balance.export_state()
    stepping(balance, training=False)(TWO[0])
    after = balance.export_state()
    found["same"] = all(np.array_equal(before[name], after[name]) for name in before)
    found |= {f"state/{name}": value for name, value in after.items()}

    note = stepping(waiting)
    note(TWO[0])
    if INDEX == 1:
        waiting.metrics()
    found["pending"] = waiting.export_state()["pending"]  # by both at once
    found["update"] = note(TWO[0])
    np.savez(folder / f"{INDEX}.npz", **{name: np.asarray(value) for name, value in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
