"""Where JAX's learner keeps its arrays: on one device, or on several that share each batch."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine

ROWS = "rows"  # the mesh's one axis
PLATFORMS = {"cpu": "cpu", "cuda": "gpu"}


class Layout:
    """The devices of a run: each has everything but the batch, of which each has its rows.

    With several, `jit` adds what they must say to each other. They may be of several processes
    (`jax_crew`), all of which hand in the same arrays.

    Attributes:
        device: the first one of this process.
        whole: the sharding of what every device has; None on one device.
    """

    def __init__(self, engine: Engine) -> None:
        devices = devices_of(engine.device, engine.devices)
        self.device: Any = next(d for d in devices if d.process_index == jax.process_index())
        self.whole: Any = None
        self._rows: Any = None
        if len(devices) > 1:
            mesh = Mesh(np.array(devices), (ROWS,), axis_types=(AxisType.Auto,))
            self.whole, self._rows = _over(mesh), _over(mesh, ROWS)

    def everywhere(self, tree: Any) -> Any:
        """Copies on every device."""
        if self.whole is None:
            return jax.device_put(tree, self.device)
        return jax.tree.map(lambda x: _placed(x, self.whole), tree)

    def divided(self, tree: Any) -> Any:
        """By rows, each device its part; whole where their number does not divide."""
        if self._rows is None:
            return tree  # jit takes it along
        return jax.tree.map(self._divided, tree)

    def _divided(self, x: Any) -> Any:
        assert self._rows is not None
        divides = np.shape(x)[0] % self._rows.mesh.size == 0
        return _placed(x, self._rows if divides else self.whole)


def _over(mesh: Mesh, *axes: str) -> NamedSharding:
    return NamedSharding(mesh, P(*axes))  # type: ignore[no-untyped-call]


def _placed(x: Any, sharding: Any) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    array = np.asarray(x)  # device_put would first ask all processes whether they have the same
    array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def devices_of(name: str, count: int) -> list[Any]:
    """The first `count` devices of all processes; UserError if there are fewer."""
    if name == "cpu":
        _make_cpu_devices(count)
    try:
        found = jax.devices(PLATFORMS[name])
    except RuntimeError as error:
        raise UserError("no CUDA device is at hand: choose --device cpu") from error
    if count > len(found):
        raise _too_many(count, len(found))
    return found[:count]


def _make_cpu_devices(count: int) -> None:
    """JAX makes as many as it is told to, until it first computes."""
    config: Any = jax.config
    if count == 1 or config.jax_num_cpu_devices >= count or jax.distributed.is_initialized():
        return
    try:
        config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        found = len(jax.devices("cpu"))
        if count > found:  # XLA_FLAGS may have made more than JAX was told to
            raise _too_many(count, found) from error


def _too_many(count: int, found: int) -> UserError:
    return UserError(f"--devices must be at most {found} here, got {count}")
