"""Four devices, their mesh and what is placed there; needs jax: import after `importorskip`."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

MESH = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
EVERYWHERE, SPREAD = NamedSharding(MESH, P()), NamedSharding(MESH, P("data"))


def each_device(function: Any, **options: Any) -> Any:
    """`function(losses, mask, state)` on a row for each device, all devices' results stacked."""

    def local(losses: Any, mask: Any, state: Any) -> Any:
        return jax.tree.map(lambda x: x[None], function(losses[0], mask[0], state))

    specs = {"in_specs": (P("data"), P("data"), P()), "out_specs": P("data")}
    return jax.jit(jax.shard_map(local, mesh=MESH, **specs, **options))
