"""One run by several processes of JAX, on as many hosts as one likes; each has one device.

Whatever launches them sets RANK, WORLD_SIZE and JAX_COORDINATOR_ADDRESS (host:port of rank 0, that
nobody listens at), and on several GPUs of a host LOCAL_RANK. Of one that dies the others hear by
the coordinator, which ends them within `ranks.patience()`; one that only stops answering its
launcher must end.
"""

from __future__ import annotations

import os
from typing import Any

from loss_balance.experiments.runs.processes import COORDINATOR
from loss_balance.experiments.runs.ranks import patience
from loss_balance.experiments.training.loop import Run


def join(run: Run) -> Any:
    """The crew of this process, once the others are there."""
    from loss_balance.experiments.training.learners.by_framework import use_one_thread

    use_one_thread("jax")
    import jax

    from loss_balance.experiments.training.learners.jax_crew import JaxCrew

    config: Any = jax.config
    if not jax.distributed.is_initialized():
        if run.engine.device == "cpu":
            config.update("jax_num_cpu_devices", 1)
            config.update("jax_cpu_collectives_implementation", "gloo")
        config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
        jax.distributed.initialize(
            coordinator_address=os.environ[COORDINATOR],
            num_processes=int(os.environ["WORLD_SIZE"]),
            process_id=int(os.environ["RANK"]),
            local_device_ids=[int(os.environ.get("LOCAL_RANK", "0"))],
            initialization_timeout=patience(),
            heartbeat_timeout_seconds=patience(),
            shutdown_timeout_seconds=patience(),
        )
    return JaxCrew()


def leave() -> None:
    """Ends the group: the last to be called."""
    import jax

    jax.distributed.shutdown()  # type: ignore[no-untyped-call]
