"""The processes of `jax.distributed` that train one run: all see the same arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from numpy.typing import NDArray

from loss_balance.experiments.training.crew import refuse_unequal


class JaxCrew:
    """All processes; each is given the whole of every batch, and computes its devices' rows."""

    part: slice = slice(None)

    def __init__(self) -> None:
        self.rank: int = jax.process_index()
        self.size: int = jax.process_count()

    def wait(self) -> None:
        _of_all(0.0)

    def all(self, agreed: bool) -> bool:
        return bool(_of_all(float(agreed)).all())

    def check_equal(self, what: str, values: Sequence[float]) -> None:
        refuse_unequal(what, _of_all(values).tolist())

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = _of_all(values).mean(axis=0)
        return mean


def _of_all(values: Any) -> NDArray[np.float64]:
    """Those of each process, (processes, ...): as bits, for JAX would make them float32."""
    mine = np.atleast_1d(np.asarray(values, np.float64))
    every = np.ascontiguousarray(process_allgather(mine.view(np.uint32)))
    return every.view(np.float64)
