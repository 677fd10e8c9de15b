"""Blocks of docs/distributed/tensorflow.md, in a process of their own.

`python tensorflow_pages.py mirrored` runs those for one machine on two CPU devices and writes
mirrored.npz; `python tensorflow_pages.py workers [VICTIM]` is one worker, which is killed at its
eighth step if it is the victim.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from support.distributed.two_replicas import two_replicas
from support.docs.pages import run

PAGE = "distributed/tensorflow.md"


def mirrored() -> None:
    both = two_replicas()
    with mock.patch.object(tf.distribute, "MirroredStrategy", return_value=both):
        page: dict[str, Any] = run(PAGE, "fit", "mirrored-fit", "mirrored-loop")
    assert page["strategy"].num_replicas_in_sync == 2
    found = {"w": page["w"].numpy(), "batches": page["batches"]}
    found |= {f"loop/{name}": x for name, x in page["balance"].export_state().items()}
    for name in ("model", "mirrored"):
        weights = [np.asarray(x) for x in page[name].get_weights()]
        found |= {f"{name}/{i}": x for i, x in enumerate(weights)}
        balancer = page[name].balancer
        found |= {f"{name}/{key}": x for key, x in balancer.export_state().items()}
    np.savez("mirrored.npz", **found)


def workers(victim: str) -> None:
    steps: list[Any] = []
    spread = tf.distribute.MultiWorkerMirroredStrategy.distribute_datasets_from_function

    def watched(strategy: Any, *args: Any) -> Any:
        steps.append(args)
        if len(steps) == 8 and str(strategy.cluster_resolver.task_id) == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return spread(strategy, *args)

    kind = tf.distribute.MultiWorkerMirroredStrategy
    with mock.patch.object(kind, "distribute_datasets_from_function", watched):
        run(PAGE, "workers")
    sys.stdout.write(f"steps {len(steps)}\n")


if __name__ == "__main__":
    if sys.argv[1] == "mirrored":
        mirrored()
    else:
        workers(sys.argv[2])
