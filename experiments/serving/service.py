"""A scheduler at work in a thread of its own."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable

from loss_balance.experiments.serving.scheduler import Scheduler

LOG = logging.getLogger("loss_balance.serving")


class Service:
    """Computes what the scheduler takes, from `start` to `close`.

    Args:
        scheduler: of which nobody else calls `step`.
        warm_up: called first in the thread, for what a library prepares once a thread.
    """

    def __init__(self, scheduler: Scheduler, warm_up: Callable[[], object] = lambda: None) -> None:
        self.scheduler: Scheduler = scheduler
        self._warm_up = warm_up
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._thread.is_alive() and not self.scheduler.closing

    def start(self) -> None:
        """Begins; once only."""
        self._thread.start()

    def close(self, *, drop: bool = False) -> None:
        """Takes no more, and returns once all that was taken has its outcome.

        Args:
            drop: turn away what waits; what is at work goes no further than to its next exit.
        """
        self.scheduler.close(drop=drop)
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        scheduler, changed = self.scheduler, self.scheduler.changed
        try:
            self._warm_up()
            while True:
                if scheduler.step():
                    continue
                with changed:
                    changed.wait_for(lambda: not scheduler.idle or scheduler.closing)
                    if scheduler.idle:
                        return
        except Exception as error:  # a bug; those who wait are told, and health says so
            log_failure("the service", error)
            scheduler.fail(error)


def log_failure(what: str, error: Exception) -> None:
    """Where it happened, not what it says: a message may quote what was sent."""
    where = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("%s raised %s\n%s", what, type(error).__name__, where)
