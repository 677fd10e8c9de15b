"""The way to a Dask cluster: one that stands, or one of processes on this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import Client, LocalCluster

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.places import cores
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run

TIMEOUT = 20  # seconds


@contextlib.contextmanager
def connected(address: str, runs: Sequence[Run]) -> Iterator[Client]:
    """A client of the cluster, once it has a worker.

    Args:
        address: as `places.Cluster` has it.
        runs: those on a GPU need workers that name it as a resource.

    Raises:
        UserError: there is no such cluster, or no worker of it names a GPU.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes as an error
    with contextlib.ExitStack() as stack:
        if address.startswith("local"):
            count = int(address.partition(":")[2] or cores())
            cluster = LocalCluster(
                n_workers=min(count, len(runs)),
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=None,  # Dask would end a run that takes more than its part
                resources={"GPU": len(runs)},  # they share it, as those of --jobs do
            )
            client = stack.enter_context(Client(stack.enter_context(cluster), set_as_default=False))
        else:
            client = stack.enter_context(_client(address))
        with console.working("Waiting for the cluster's workers."):
            client.wait_for_workers(1)
        _check_gpus(client, runs)
        yield client


def _client(address: str) -> Client:
    try:
        if "://" in address:
            return Client(address, set_as_default=False, timeout=20)
        return Client(
            scheduler_file=str(Path(address).absolute()), set_as_default=False, timeout=20
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"--cluster must be a scheduler that answers, {address}: {error}"
        ) from error


def _check_gpus(client: Client, runs: Sequence[Run]) -> None:
    wanted = any(run.engine.device == "cuda" for run in runs)
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if wanted and not any(worker["resources"].get("GPU") for worker in workers):
        raise UserError(
            "--device cuda needs workers that name their GPU as a resource, none does: start "
            'each with --resources "GPU=1"'
        )
