"""Runs by the workers of a Dask cluster: any worker may die, and any may take over.

The workers see the same folders as the command. What they report goes through the scheduler, as
does the lease that each of them looks at: it ends with the command, however that ends.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distributed import Client, Variable

from loss_balance.experiments.runs.cluster.connection import connected
from loss_balance.experiments.runs.cluster.folder import SESSION, needs_of, shared_folder
from loss_balance.experiments.runs.cluster.tasks import Tasks
from loss_balance.experiments.runs.cluster.worker import BEAT
from loss_balance.experiments.runs.watching import Tell
from loss_balance.experiments.training.loop import Run


def train_there(
    runs: Sequence[Run], folder: Path, address: str, local: int | None, tell: Tell
) -> dict[str, dict[str, Any]]:
    """`execution.execute` by a cluster's workers, as `connected` finds them.

    `folder` is absolute.
    """
    session = f"{SESSION}{uuid.uuid4().hex}"  # two commands may have runs of one name
    needs = needs_of(runs, folder, session)
    with (
        connected(address, local, runs) as client,
        shared_folder(client, needs, runs),
        _lease(client, session),
    ):
        tasks = Tasks(client, needs, runs, tell)
        try:
            return tasks.results()
        finally:
            tasks.stop()


@contextlib.contextmanager
def _lease(client: Client, session: str) -> Iterator[None]:
    """Within, workers of the session can see that the command lives."""
    beat, over = Variable(session, client=client), threading.Event()

    def renew() -> None:
        count = 0
        while not over.wait(BEAT):
            count += 1
            with contextlib.suppress(OSError):  # the next beat tries again
                beat.set(count, callback_timeout=BEAT)

    beat.set(0)
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):  # a scheduler that is gone forgets by itself
            beat.delete()
