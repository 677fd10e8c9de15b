"""One state on many devices: an array that calls itself replicated need not be."""

from __future__ import annotations

from typing import Any

import numpy as np

from loss_balance.schemes.base import AnyState


def check_copies(state: AnyState) -> None:
    """ValueError if devices of this process hold different copies of what should be one array.

    `shard_map(check_vma=False)` takes `out_specs=P()` at its word: without `axis_name` each device
    then goes on with a state of its own, and reading the array shows that of the first. What other
    processes hold is not seen from here. Waits for the devices.
    """
    for name, value in state._asdict().items():
        differ = _differing(value)
        if differ is not None:
            (first, one), (second, other) = differ
            raise ValueError(
                f"a state must be the same on all devices, got {name} {one.tolist()} on {first} "
                f"and {other.tolist()} on {second}: pass axis_name= to the balance in shard_map"
            )


def _differing(value: Any) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]] | None:
    """Two devices with their unequal copies of one part of an array; None where there are none."""
    shards = getattr(value, "addressable_shards", ())  # NumPy's arrays have one copy
    firsts: dict[str, tuple[Any, np.ndarray]] = {}
    for shard in shards if len(shards) > 1 else ():
        copy = np.asarray(shard.data)
        first = firsts.setdefault(str(shard.index), (shard.device, copy))
        if not np.array_equal(first[1], copy, equal_nan=True):
            return first, (shard.device, copy)
    return None
