"""Runs by the workers of a Dask cluster: any worker may die, and any may take over.

The workers see the same folders as the command. What they report goes through the scheduler, as
does the lease that each of them looks at: it ends with the command, however that ends.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Event, Future, KilledWorker, Variable

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.cluster.connection import connected
from loss_balance.experiments.runs.cluster.folder import shared_folder
from loss_balance.experiments.runs.cluster.worker import BEAT, KINDS, Job, work
from loss_balance.experiments.runs.watching import Done, Report, Tell
from loss_balance.experiments.training.loop import Run

RETRIES = 2  # of what is no UserError: a connection that breaks, a file system that hiccups
PATIENCE = 30.0  # seconds for runs to stop, when they are asked to

Happening = Report | Future


def train_there(
    runs: Sequence[Run], folder: Path, address: str, tell: Tell
) -> dict[str, dict[str, Any]]:
    """`execution.execute` by the workers of the cluster at `address`; `folder` is absolute."""
    session = f"loss-balance-{uuid.uuid4().hex}"  # two commands may have runs of one name
    with (
        connected(address, runs) as client,
        shared_folder(client, folder, runs, session),
        _lease(client, session),
    ):
        happenings: SimpleQueue[Happening] = SimpleQueue()
        client.subscribe_topic(session, lambda event: happenings.put(_report(event)))
        names = {}
        futures = []
        try:
            for run in runs:
                future = _submitted(client, Job(run, folder, session))
                names[future.key] = run.name
                futures.append(future)
                future.add_done_callback(happenings.put)
            return _results(happenings, names, tell)
        finally:
            _stop(client, session, futures)
            with contextlib.suppress(Empty):
                while True:
                    happening = happenings.get_nowait()
                    if not isinstance(happening, Future):
                        tell(happening)


def _submitted(client: Client, job: Job) -> Future:
    """The run as a task of its own, never one that Dask remembers."""
    gpu = {"GPU": 1} if job.run.engine.device == "cuda" else None
    key = f"{job.session}-{job.run.name}"
    return client.submit(work, job, key=key, pure=False, retries=RETRIES, resources=gpu)


def _report(event: tuple[float, Any]) -> Report:
    """What a worker told, as `worker.Line` sent it."""
    _, (kind, fields) = event
    return KINDS[kind](**fields)


def _results(
    happenings: SimpleQueue[Happening], names: dict[str, str], tell: Tell
) -> dict[str, dict[str, Any]]:
    """Waits for all runs, and tells what happens until then."""
    results: dict[str, dict[str, Any]] = {}
    while len(results) < len(names):
        try:
            happening = happenings.get(timeout=0.2)  # so that Ctrl-C is heard
        except Empty:
            continue
        if isinstance(happening, Future):
            name = names[happening.key]
            results[name] = _result(happening, name)
            happening = Done(name)
        tell(happening)
    return results


def _result(future: Future, name: str) -> dict[str, Any]:
    try:
        outcome = future.result()
    except KilledWorker as error:
        raise UserError(
            f"{name}: its worker died {error.allowed_failures + 1} times (out of memory?); what it "
            "reached stays: --resume goes on"
        ) from error
    except CancelledError as error:
        raise UserError(
            f"{name}: the cluster gave it up or is gone; what it reached stays: --resume goes on"
        ) from error
    if isinstance(outcome, str):
        raise UserError(outcome)
    return dict(outcome)


@contextlib.contextmanager
def _lease(client: Client, session: str) -> Iterator[None]:
    """Within, workers of the session can see that the command lives."""
    beat, over = Variable(session, client=client), threading.Event()

    def renew() -> None:
        count = 0
        while not over.is_set():
            with contextlib.suppressOSError:  # the next beat tries again
                beat.set(count)
            count += 1
            over.wait(BEAT)

    beat.set(-1)
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppressOSError:  # a scheduler that is gone forgets by itself
            beat.delete()


def _stop(client: Client, session: str, futures: Sequence[Future]) -> None:
    """Ends what runs at its next report and what waits at once; a mere cancel would end neither."""
    pending = [future for future in futures if not future.done()]
    if not pending:
        return
    with contextlib.suppressOSError:
        Event(session, client=client).set()
        client.sync(_all_done, pending, callback_timeout=PATIENCE)
    client.cancel(pending, force=True)


async def _all_done(futures: Sequence[Future]) -> None:
    for future in futures:
        await future._state.wait()
