"""The runs as tasks of a cluster, which are handed out again as long as they get anywhere."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Event, Future, KilledWorker

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.cluster.folder import Needs
from loss_balance.experiments.runs.cluster.worker import KINDS, Begun, Job, Message, work
from loss_balance.experiments.runs.watching import Done, Epoch, Tell
from loss_balance.experiments.training.loop import Run

RETRIES = 2  # of what is no UserError: a connection that breaks, a file system that hiccups
PATIENCE = 30.0  # seconds for runs to stop, when they are asked to


class Tasks:
    """All runs of a command, on their way.

    Args:
        client: of the cluster.
        needs: what every worker has.
        runs: what to train, in this order.
        tell: gets what happens, while the results are awaited.
    """

    def __init__(self, client: Client, needs: Needs, runs: Sequence[Run], tell: Tell) -> None:
        self.client = client
        self.needs = needs
        self.tell = tell
        self.happenings: SimpleQueue[Message | Future[Any]] = SimpleQueue()
        self.runs: dict[Any, Run] = {}  # by the key of the task
        self.futures: dict[str, Future[Any]] = {}  # by the run's name
        self.begun: Counter[str] = Counter()  # how often, since the run's last epoch
        client.subscribe_topic(needs.session, self._hear)
        for run in runs:
            self._submit(run)

    def _hear(self, event: tuple[float, Any]) -> None:
        _, (kind, fields) = event  # as `worker.Line` sent it
        self.happenings.put(KINDS[kind](**fields))

    def _submit(self, run: Run) -> None:
        """As a task of its own, never one that Dask remembers."""
        key = f"{self.needs.session}-{run.name}-{len(self.runs)}"
        self.runs[key] = run
        future = self.client.submit(
            work,
            Job(run.name, pickle.dumps(run), self.needs),
            key=key,
            pure=False,
            retries=RETRIES,
            resources={"GPU": 1} if run.engine.device == "cuda" else None,
        )
        self.futures[run.name] = future
        future.add_done_callback(self.happenings.put)

    def results(self) -> dict[str, dict[str, Any]]:
        """Waits for all runs, and tells what happens until then.

        Raises:
            UserError: what a run raised; or it ends every worker, or the cluster is gone.
        """
        results: dict[str, dict[str, Any]] = {}
        while len(results) < len(self.futures):
            try:
                happening = self.happenings.get(timeout=0.2)  # so that Ctrl-C is heard
            except Empty:
                continue
            if not isinstance(happening, Future):
                self._take(happening)
            elif (result := self._result(happening)) is not None:
                name = self.runs[happening.key].name
                results[name] = result
                self.tell(Done(name))
        return results

    def _take(self, message: Message) -> None:
        if isinstance(message, Begun):
            self.begun[message.run] += 1
            return
        if isinstance(message, Epoch):
            self.begun[message.run] = 0
        self.tell(message)

    def _result(self, future: Future[Any]) -> dict[str, Any] | None:
        """None if the run was handed out again."""
        run = self.runs[future.key]
        try:
            outcome = future.result()
        except KilledWorker as error:
            self._go_on(run, error.allowed_failures)
            return None
        except CancelledError:
            raise UserError(
                f"{run.name}: the cluster gave it up or is gone; what it reached stays: --resume "
                "goes on"
            ) from None
        if isinstance(outcome, str):
            raise UserError(outcome)
        return dict(outcome)

    def _go_on(self, run: Run, allowed: int) -> None:
        """Dask gives up what was on several workers that died, be it that it only waited there."""
        deaths = self.begun[run.name]
        if deaths > allowed:
            raise UserError(
                f"{run.name}: {deaths} workers died in the same epoch of it (out of memory?); what "
                "it reached stays: --resume goes on"
            )
        self._submit(run)

    def stop(self) -> None:
        """Ends what runs at its next report and what waits at once, and tells the rest.

        A mere cancel would end nothing that runs.
        """
        if pending := self._pending():
            with contextlib.suppress(OSError):
                Event(self.needs.session, client=self.client).set()
            deadline = time.monotonic() + PATIENCE
            while self._pending() and time.monotonic() < deadline:
                self._tell_next(timeout=0.2)
            self.client.cancel(pending, force=True)
        while self._tell_next(timeout=0.0):
            pass

    def _pending(self) -> list[Future[Any]]:
        return [future for future in self.futures.values() if not future.done()]

    def _tell_next(self, timeout: float) -> bool:
        """Whether anything happened in so many seconds; results are not wanted any more."""
        try:
            happening = self.happenings.get(timeout=timeout)
        except Empty:
            return False
        if not isinstance(happening, Future):
            self._take(happening)
        return True
