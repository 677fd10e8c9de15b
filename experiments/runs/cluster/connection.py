"""The way to a Dask cluster: one that stands, or one of processes on this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run

TIMEOUT = 10  # seconds for a scheduler to answer


@contextlib.contextmanager
def connected(address: str, local: int | None, runs: Sequence[Run]) -> Iterator[Client]:
    """A client of the cluster, once it has a worker.

    Args:
        address: of a scheduler, or the file that it wrote.
        local: in place of that, so many workers on this machine.
        runs: those on a GPU need workers that name it as a resource.

    Raises:
        UserError: there is no such cluster, or no worker of it names a GPU.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes as an error
    with contextlib.ExitStack() as stack:
        if local:
            cluster = stack.enter_context(_workers_here(min(local, len(runs)), gpus=len(runs)))
            client = stack.enter_context(Client(cluster, set_as_default=False))
        else:
            client = stack.enter_context(client_of(address))
        with console.working("Waiting for the cluster's workers."):
            client.wait_for_workers(1)
        _check_gpus(client, runs)
        yield client


def check_answers(address: str) -> None:
    """UserError as of `client_of`."""
    client_of(address).close()


def client_of(address: str) -> Client:
    """A client of the scheduler at an address, or of the file that it wrote.

    Raises:
        UserError: none answers.
    """
    try:
        found = address if "://" in address else json.loads(Path(address).read_text())["address"]
        return Client(found, set_as_default=False, timeout=TIMEOUT)
    except (OSError, ValueError, LookupError, TypeError) as error:  # the last ones of a wrong file
        reason = f"{address}: {type(error).__name__}: {error}"
        raise UserError(f"--cluster must be a scheduler that answers, {reason}") from None


def _workers_here(count: int, gpus: int) -> LocalCluster:
    """Workers of one thread each, which share this machine's GPUs as runs of --jobs do."""
    with _signals_for_us_alone():
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=None,  # Dask would end a run that takes more than its part
            resources={"GPU": gpus},
            silence_logs=logging.CRITICAL,
        )


@contextlib.contextmanager
def _signals_for_us_alone() -> Iterator[None]:
    """Processes and threads that are started within, and theirs, are deaf to Ctrl-C and SIGTERM.

    Both may reach a whole group of processes; it is the command that ends its workers then.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it begins with the first process, it lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_gpus(client: Client, runs: Sequence[Run]) -> None:
    wanted = any(run.engine.device == "cuda" for run in runs)
    if wanted and not any(client.run(_gpus).values()):
        raise UserError(
            "--device cuda needs workers that name their GPU as a resource, none does: start "
            'each with --resources "GPU=1"'
        )


def _gpus(dask_worker: Any) -> float:
    """How many GPUs the worker names."""
    return float(dask_worker.state.total_resources.get("GPU", 0))
