"""What a launcher tells the processes of `jax.distributed` on one machine."""

from __future__ import annotations

from support.distributed.processes import free_ports


def environments(count: int = 2, devices: int = 2) -> list[dict[str, str]]:
    """One for each process, of so many CPU devices each."""
    common = {
        "COORDINATOR": f"127.0.0.1:{free_ports(1)[0]}",
        "PROCESSES": str(count),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    return [common | {"PROCESS": str(rank)} for rank in range(count)]
