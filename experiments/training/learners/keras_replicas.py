"""Where TensorFlow's learner computes: on one device, or in a replica on each of several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import Engine

KINDS = {"cpu": "CPU", "cuda": "GPU"}
MEAN: Any = tf.distribute.ReduceOp.MEAN
SUM: Any = tf.distribute.ReduceOp.SUM


class OneDevice:
    """All on the first device."""

    count = 1

    def __init__(self, kind: str) -> None:
        self.device: str = f"{kind}:0"

    def scope(self) -> AbstractContextManager[Any]:
        """Variables and tensors made in it lie here."""
        scope: AbstractContextManager[Any] = tf.device(self.device)
        return scope

    def everywhere(self, array: NDArray[Any]) -> Any:
        """A tensor for `jointly`, on each device."""
        with self.scope():
            return tensor(array)

    def jointly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` on each device; what comes back is the first one's."""
        return function

    def own(self, rows: Any) -> Any:
        """Within `jointly`, those rows of a batch that are this device's."""
        return rows

    def reduced(self, how: Any, values: Any) -> Any:  # noqa: ARG002
        """Within `jointly`, tensors reduced over all devices."""
        return values

    def norms(self, norms: Any) -> Any:
        """Within `jointly`, those of the whole batch's gradients."""
        return norms


class Replicas:
    """Variables on each of several devices; the same methods."""

    def __init__(self, kind: str, count: int) -> None:
        self.count = count
        devices = [f"{kind}:{i}" for i in range(count)]
        on_cpu = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
        self.strategy: Any = tf.distribute.MirroredStrategy(devices, cross_device_ops=on_cpu)

    def scope(self) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def everywhere(self, array: NDArray[Any]) -> Any:
        devices = self.strategy.extended.worker_devices

        def on_device(context: Any) -> Any:
            with tf.device(devices[context.replica_id_in_sync_group]):
                return tf.identity(tensor(array))

        return self.strategy.experimental_distribute_values_from_function(on_device)

    def jointly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def by_all(*args: Any) -> Any:
            results = self.strategy.run(function, args=args)
            return self.strategy.experimental_local_results(results)[0]

        return by_all

    def own(self, rows: Any) -> Any:
        return rows[_context().replica_id_in_sync_group :: self.count]

    def reduced(self, how: Any, values: Any) -> Any:
        return _context().all_reduce(how, values)

    def norms(self, norms: Any) -> Any:
        return tf.sqrt(self.reduced(SUM, norms**2)) / self.count  # other rows: squares add up


Place = OneDevice | Replicas


def _context() -> Any:
    return tf.distribute.get_replica_context()


def place_of(engine: Engine) -> Place:
    """Where the engine says.

    Raises:
        UserError: there are not as many devices, or Keras runs on another backend.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UserError(f"Keras must run on TensorFlow here, got {backend}: see KERAS_BACKEND")
    kind, count = KINDS[engine.device], engine.devices
    if kind == "GPU":
        found = len(tf.config.list_physical_devices("GPU"))
        if not found:
            raise UserError("no CUDA device is at hand: choose --device cpu")
        if count > found:
            raise _too_many(count, found)
    elif count > 1:
        _make_cpu_devices(count)
    return OneDevice(kind) if count == 1 else Replicas(kind, count)


def _make_cpu_devices(count: int) -> None:
    """TensorFlow makes as many as it is told to, until it first computes; each needs a thread."""
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        )
        tf.config.threading.set_inter_op_parallelism_threads(count)
    except RuntimeError as error:
        raise _too_many(count, len(tf.config.list_logical_devices("CPU"))) from error


def _too_many(count: int, found: int) -> UserError:
    return UserError(f"--devices must be at most {found} here, got {count}")


def norm_together(net: keras.Model) -> None:
    """Makes batch norm one over all replicas; before the network's first call."""
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def average_statistics(net: keras.Model) -> None:
    """Gives all replicas the mean of their running statistics, of which each has its own."""
    for variable in net.non_trainable_variables:
        replicas = [replica.numpy() for replica in variable.value.values]
        variable.assign(np.mean(replicas, axis=0))


def tensor(array: NDArray[Any] | None) -> Any:
    """A tensor on the current device; in 64 bits, for TensorFlow keeps int32 on the host."""
    array = np.asarray(array)
    return tf.constant(array.astype(np.int64) if array.dtype == np.int32 else array)
