"""What two processes of two devices each go through together, one function a case.

`python jax_processes.py FOLDER` with COORDINATOR and PROCESS set writes PROCESS.json there: what
each case returned, or its error. What should come is in `test_processes.py`.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from support.balancers.replica_steps import FOUR, SCHEME, numbers

from loss_balance.backends.jax import balance, export_state, import_state, init, metrics


def seen(state: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in export_state(state).items()}


def everywhere(state: Any, mesh: Mesh) -> Any:
    return jax.device_put(state, NamedSharding(mesh, P()))


def rows(array: np.ndarray, mesh: Mesh) -> Any:
    """Spread over all devices, of which this process hands over its own rows."""
    own = np.split(array, jax.process_count())[jax.process_index()]
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), own)


def mapped(mesh: Mesh, *, axis_name: str | None, check_vma: bool = True) -> Any:
    """A step on the losses of each device."""

    def local(losses: Any, mask: Any, state: Any) -> Any:
        return balance(losses[0], state, SCHEME, axis_name, mask=mask[0])[1]

    specs = {"in_specs": (P("data"), P("data"), P()), "out_specs": P()}
    return jax.jit(jax.shard_map(local, mesh=mesh, check_vma=check_vma, **specs))


def refused(call: Any) -> str:
    """The message of the error that came."""
    try:
        call()
    except (ValueError, AssertionError) as error:
        return str(error)
    return "no error"


def spread_batch(mesh: Mesh) -> Any:
    """The weights of each step on the mean over a batch of all."""
    step = jax.jit(lambda batch, state: balance(batch.mean(0), state, SCHEME)[1])
    state, weights = everywhere(init(SCHEME), mesh), []
    for k in range(3):
        batch = np.linspace(0.5, 2.0 + k, 24, dtype=np.float32).reshape(8, 3)
        state = step(rows(batch, mesh), state)
        weights.append(np.asarray(state.weights).tolist())
    return weights


def absent_and_bad(mesh: Mesh) -> Any:
    """Steps in which losses are absent, NaN and infinite on one device or another."""
    step, state, weights = mapped(mesh, axis_name="data"), everywhere(init(SCHEME), mesh), []
    for losses in FOUR:
        values, mask = numbers(losses)
        state = step(rows(values, mesh), rows(mask, mesh), state)
        weights.append(np.asarray(state.weights).tolist())
    return seen(state) | {"each": weights}


def evaluated(mesh: Mesh) -> Any:
    """By all, in the middle of training, and read by one alone."""
    values, mask = numbers(FOUR[0])
    step = mapped(mesh, axis_name="data")
    state = step(rows(values, mesh), rows(mask, mesh), everywhere(init(SCHEME), mesh))
    look = jax.jit(partial(balance, scheme=SCHEME, training=False))
    total, after = look(everywhere(jnp.ones(3), mesh), state)
    row = metrics(state) if jax.process_index() == 0 else None
    return {"same": seen(after) == seen(state), "total": float(total), "row": row} | seen(after)


def imported(mesh: Mesh) -> Any:
    """A state that each process read from a file goes on over all devices."""
    _, begun = balance(jnp.array([4.0, 1.0, 0.5]), init(SCHEME), SCHEME)
    state = everywhere(import_state(export_state(begun, SCHEME), SCHEME), mesh)
    values, mask = numbers(FOUR[0])
    return seen(mapped(mesh, axis_name="data")(rows(values, mesh), rows(mask, mesh), state))


def parted(mesh: Mesh) -> Any:
    """Without `axis_name`: on two devices of a process, and on one of each."""
    values, mask = numbers(FOUR[0])
    step = mapped(mesh, axis_name=None, check_vma=False)
    state = step(rows(values, mesh), rows(mask, mesh), everywhere(init(SCHEME), mesh))
    firsts = Mesh(np.array([mesh.devices[0], mesh.devices[2]]), "data")
    step = mapped(firsts, axis_name=None, check_vma=False)
    own = step(rows(values[:2], firsts), rows(mask[:2], firsts), everywhere(init(SCHEME), firsts))
    compared = refused(lambda: multihost_utils.assert_equal(export_state(own)))
    return {"here": refused(lambda: export_state(state)), "compared": compared}


CASES = [spread_batch, absent_and_bad, evaluated, imported, parted]


if __name__ == "__main__":
    rank = int(os.environ["PROCESS"])
    jax.distributed.initialize(os.environ["COORDINATOR"], 2, rank)
    whole = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    found: dict[str, Any] = {}
    for case in CASES:
        try:
            found[case.__name__] = case(whole)
        except Exception as error:  # shown by the test of that case
            found[case.__name__] = f"{type(error).__name__}: {error}"
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
