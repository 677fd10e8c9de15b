"""Two replicas' clock, and one's bad day, in a process of their own.

`python keras_replica_clock.py FILE FOLDER` writes what each part leaves; see `PARTS`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from support.distributed.two_replicas import two_replicas

from loss_balance import AdaLoss, Constant
from loss_balance.backends.tensorflow import Balancer

SCHEME = AdaLoss(2, decay=0.5)
# Per micro-batch, per replica; None is absent. The third and sixth end an update.
MICRO: list[list[list[float | None]]] = [
    [[4.0, 1.0], [2.0, None]],
    [[None, 3.0], [6.0, 2.0]],
    [[1.0, None], [None, None]],
    [[3.0, math.nan], [1.0, 5.0]],
    [[1.0, 2.0], [-1.0, 2.0]],
    [[1.0, 2.0], [3.0, 2.0]],
]
# Each an update of its own.
WHOLE: list[list[list[float | None]]] = [
    [[4.0, 1.0], [2.0, 3.0]],
    [[None, None], [2.0, 2.0]],  # nothing on one replica
    [[1.0, -2.0], [3.0, 2.0]],  # a negative loss on one
    [[1.0, math.inf], [3.0, -2.0]],
    [[None, None], [None, None]],
    [[0.0, 1.0], [4.0, 1.0]],  # off on one
]


class Collectives:
    """Counts the all-reduces of all replicas while it lasts."""

    def __enter__(self) -> Collectives:
        self.count, self.usual = 0, tf.distribute.ReplicaContext.all_reduce

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            return self.usual(*args, **options)

        tf.distribute.ReplicaContext.all_reduce = counted
        return self

    def __exit__(self, *_: object) -> None:
        tf.distribute.ReplicaContext.all_reduce = self.usual


def spread(strategy: tf.distribute.Strategy, rows: list[Any]) -> Any:
    """A value of each replica's own."""
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(rows[context.replica_id_in_sync_group])
    )


def stepping(strategy: Any, balance: Balancer, **static: Any) -> Callable[..., np.ndarray]:
    """A compiled step on the losses of each replica, giving the weights that each has used."""

    @tf.function
    def step(losses: Any, mask: Any, traced: dict[str, Any]) -> Any:
        def replica(losses: Any, mask: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(losses)
                total = balance(losses, mask=mask, **static, **traced)
            used = tape.gradient(total, losses)
            return tf.where(mask, used, balance.loss_weights)

        return strategy.run(replica, args=(losses, mask))

    def run(per_replica: list[list[float | None]], **traced: Any) -> np.ndarray:
        values = [[0.0 if x is None else x for x in losses] for losses in per_replica]
        there = [[x is not None for x in losses] for losses in per_replica]
        used = step(spread(strategy, values), spread(strategy, there), traced)
        return np.array([x.numpy() for x in used.values])

    return run


def static(strategy: Any, folder: Path) -> dict[str, Any]:
    """Functions of their own for calls that note and those that update."""
    with strategy.scope():
        balance = Balancer(SCHEME)
    with Collectives() as noting:
        note = stepping(strategy, balance, update=False)
        used = [note(MICRO[0])]
    used.append(note(MICRO[1]))
    waiting = balance.export_state()["pending"]
    with Collectives() as moving:
        move = stepping(strategy, balance, update=True)
        used.append(move(MICRO[2]))
    for k in (3, 4, 5):
        used.append((move if k == 5 else note)(MICRO[k]))
    with Collectives() as plain:
        stepping(strategy, Balancer(SCHEME))(MICRO[0])
    return {
        "used": used,
        "waiting": waiting,
        "collectives": [noting.count, moving.count, plain.count],
        **balance.export_state(),
    }


def traced(strategy: Any, folder: Path) -> dict[str, Any]:
    """One function, which a tensor tells whether to update."""
    with strategy.scope():
        balance = Balancer(SCHEME)
    step = stepping(strategy, balance)
    used = [step(MICRO[k], update=tf.constant(k % 3 == 2)) for k in range(6)]
    return {"used": used, **balance.export_state()}


def counted(strategy: Any, folder: Path) -> dict[str, Any]:
    """One function, which counts its calls; in the middle the state goes by a checkpoint."""
    with strategy.scope():
        balance, fresh = Balancer(SCHEME, accumulate=3), Balancer(SCHEME, accumulate=3)
    step = stepping(strategy, balance)
    used = [step(MICRO[k]) for k in range(5)]
    path = tf.train.Checkpoint(balance=balance).save(folder / "checkpoint")
    tf.train.Checkpoint(balance=fresh).restore(path).assert_consumed()
    used.append(stepping(strategy, fresh)(MICRO[5]))
    return {"used": used, **fresh.export_state()}


def imported(strategy: Any, folder: Path) -> dict[str, Any]:
    """As `counted`, by an exported state, from two replicas to one and back."""
    with strategy.scope():
        first, last = Balancer(SCHEME, accumulate=3), Balancer(SCHEME, accumulate=3)
    between = Balancer(SCHEME, accumulate=3)
    step = stepping(strategy, first)
    used = [step(MICRO[k]) for k in range(5)]
    between.import_state(first.export_state())
    last.import_state(between.export_state())
    used.append(stepping(strategy, last)(MICRO[5]))
    return {"used": used, **last.export_state()}


def whole(strategy: Any, folder: Path) -> dict[str, Any]:
    """Updates in which one replica has a bad day."""
    with strategy.scope():
        balance = Balancer(SCHEME)
    step = stepping(strategy, balance)
    return {"used": [step(losses) for losses in WHOLE], **balance.export_state()}


def eager(strategy: Any, folder: Path) -> dict[str, Any]:
    """What an eager first step says to a negative loss on one replica, to each scheme."""
    found = {}
    for scheme in (SCHEME, Constant(2)):
        with strategy.scope():
            balance = Balancer(scheme)
        values = spread(strategy, [[1.0, 2.0], [-1.0, 2.0]])
        said = ""
        try:
            strategy.run(balance, args=(values,))
        except ValueError as error:
            said = str(error)
        found[type(scheme).__name__] = said
        found[f"{type(scheme).__name__}/step"] = balance.export_state()["step"]
    return found


PARTS = (static, traced, counted, imported, whole, eager)


if __name__ == "__main__":
    mirrored = two_replicas()
    found = {}
    for part in PARTS:
        results = part(mirrored, Path(sys.argv[2]))
        found |= {f"{part.__name__}/{name}": np.array(value) for name, value in results.items()}
    np.savez(sys.argv[1], **found)
