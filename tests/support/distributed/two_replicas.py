"""Two replicas of TensorFlow on the CPU; to be made before it has computed anything."""

from __future__ import annotations

from typing import Any


def two_replicas() -> Any:
    """A MirroredStrategy; its usual collectives fail on CPUs now and then, by a race of theirs."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    by_one = tf.distribute.ReductionToOneDevice()
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=by_one)
    assert mirrored.num_replicas_in_sync == 2
    return mirrored
