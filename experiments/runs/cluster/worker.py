"""What a worker of a Dask cluster does with a run, and how it hears that nobody wants it."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from distributed import Client, Event, Reschedule, Variable, get_client, get_worker

from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.runs.cluster.folder import Needs, problem
from loss_balance.experiments.runs.watching import Epoch, Report, Step
from loss_balance.experiments.runs.worker import train_run

BEAT = 1.0  # seconds between two signs of life of a command
LEASE = 20.0  # seconds without one after which its runs stop
OFTEN = 0.5  # seconds between two steps that a run tells of

_turn = threading.Lock()  # frameworks are set up for a process: one run in each at a time


@dataclass(frozen=True)
class Job:
    """A pickled run of a command, which trains it in `needs.folder / name`."""

    name: str
    run: bytes
    needs: Needs


@dataclass(frozen=True)
class Begun:
    """A worker has taken the run up."""

    run: str


Message = Begun | Step | Epoch
KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Begun, Step, Epoch)}


def work(job: Job) -> dict[str, Any] | str:
    """The run's result, or what is to be told to the user: an error that no retry would mend.

    Raises:
        Reschedule: nothing was heard of the command any more. If it lives, another worker goes on.
    """
    if (lack := problem(job.needs, job.run)) is not None:
        return f"{job.name}: the worker at {get_worker().address} {lack}"
    line, lease = Line(job.needs.session), Lease(get_client(), job.needs.session)
    try:
        with _alone_in_this_process(lease):
            lease.await_sign()
            line.send(Begun(job.name))
            folder = job.needs.folder / job.name
            return train_run(pickle.loads(job.run), folder, line.tell, lease.is_over)
    except Interruption:
        if lease.ended.is_set():
            return f"{job.name} was stopped"
        raise Reschedule from None
    except UserError as error:
        return str(error)
    finally:
        lease.ended.set()


@contextlib.contextmanager
def _alone_in_this_process(lease: Lease) -> Iterator[None]:
    """Interruption if the lease is over before the worker's other threads are done."""
    while not _turn.acquire(timeout=0.2):
        if lease.is_over():
            raise Interruption
    try:
        yield
    finally:
        _turn.release()


class Line:
    """The way back to the command: a topic of the scheduler's events."""

    def __init__(self, session: str) -> None:
        self.worker: Any = get_worker()
        self.session = session
        self.told: float = -OFTEN

    def tell(self, report: Report) -> None:
        """All epochs, and of the steps one now and then."""
        now = time.monotonic()
        if isinstance(report, Step):
            if now - self.told < OFTEN:
                return
            self.told = now
        self.send(report)

    def send(self, message: Begun | Report) -> None:
        """The message's kind and fields, as `KINDS` makes one of them again."""
        self.worker.log_event(self.session, [type(message).__name__, asdict(message)])


class Lease:
    """How long a run may go on: until the command says so, or gives no sign of life any more.

    Attributes:
        ended: the command has said so, or the run needs no lease any more.
    """

    def __init__(self, client: Client, session: str) -> None:
        self.stop: Event = Event(session, client=client)
        self.beat: Variable = Variable(session, client=client)
        self.ended: threading.Event = threading.Event()
        self.heard: threading.Event = threading.Event()
        self.seen: float = time.monotonic()
        if self.stop.is_set():
            self.ended.set()
        threading.Thread(target=self._watch, daemon=True).start()

    def await_sign(self) -> None:
        """Returns when the command lives, for the run may be handed out without anybody's wish.

        Raises:
            Interruption: the lease is over.
        """
        while not self.heard.wait(timeout=0.1):
            if self.is_over():
                raise Interruption

    def is_over(self) -> bool:
        """Asked by the run, for a call to a scheduler that is gone may take long to come back."""
        return self.ended.is_set() or time.monotonic() - self.seen > LEASE

    def _watch(self) -> None:
        last = None
        while not self.is_over():
            try:
                if self.stop.wait(timeout=BEAT):
                    self.ended.set()
                beat = self.beat.get(timeout=BEAT)
            except Exception:  # whatever Dask raises without a scheduler: no sign of life
                self.ended.wait(BEAT)
                continue
            if beat != last:
                if last is not None:
                    self.heard.set()
                last, self.seen = beat, time.monotonic()
