"""What a worker of a Dask cluster does with a run, and how it hears that nobody wants it."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Event, Variable, get_client, get_worker

from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.runs.cluster.folder import unshared
from loss_balance.experiments.runs.watching import Epoch, Report, Step
from loss_balance.experiments.runs.worker import train_run
from loss_balance.experiments.training.loop import Run

BEAT = 5.0  # seconds between two signs of life of a command
LEASE = 20.0  # seconds without one after which its runs stop
OFTEN = 0.5  # seconds between two steps that a run tells of
KINDS: dict[str, type[Step] | type[Epoch]] = {"Step": Step, "Epoch": Epoch}


@dataclass(frozen=True)
class Job:
    """A run of a command, `session`, which trains it in `folder / run.name`."""

    run: Run
    folder: Path
    session: str


def work(job: Job) -> dict[str, Any] | str:
    """The run's result, or what is to be told to the user: an error that no retry would mend."""
    if (problem := unshared(job.folder, job.session)) is not None:
        return f"{job.run.name}: the worker at {get_worker().address} {problem}"
    client = get_client()
    lease, line = Lease(client, job.session), Line(job.session)
    try:
        return train_run(job.run, job.folder / job.run.name, line.tell, lease.over.is_set)
    except Interruption:
        return f"{job.run.name} was stopped"
    except UserError as error:
        return str(error)
    finally:
        lease.over.set()


class Line:
    """The way back to the command: a topic of the scheduler's events."""

    def __init__(self, session: str) -> None:
        self.worker = get_worker()
        self.session = session
        self.told = -OFTEN

    def tell(self, report: Report) -> None:
        """All epochs, and of the steps one now and then."""
        now = time.monotonic()
        if isinstance(report, Step):
            if now - self.told < OFTEN:
                return
            self.told = now
        self.worker.log_event(self.session, [type(report).__name__, asdict(report)])


class Lease:
    """`over` is set when the command asks for an end, or gives no sign of life any more."""

    def __init__(self, client: Client, session: str) -> None:
        self.stop = Event(session, client=client)
        self.beat = Variable(session, client=client)
        self.over = threading.Event()
        if self.stop.is_set():
            self.over.set()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        last, seen = None, time.monotonic()
        while not self.over.is_set():
            try:
                if self.stop.wait(timeout=BEAT):
                    break
                beat = self.beat.get(timeout=BEAT)
            except OSError:  # a timeout too: no scheduler, no sign of life
                beat = last
                self.over.wait(1.0)
            if beat != last:
                last, seen = beat, time.monotonic()
            elif time.monotonic() - seen > LEASE:
                break
        self.over.set()
