"""What a launcher tells the workers of `tf.distribute` on one machine."""

from __future__ import annotations

import json

from support.distributed.processes import free_ports


def environments(count: int = 2) -> list[dict[str, str]]:
    """One for each worker."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]
