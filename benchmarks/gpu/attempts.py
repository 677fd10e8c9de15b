"""How a job spends its seconds: configurations one after the other, whatever becomes of each."""

from __future__ import annotations

import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.gpu.options import Options
from benchmarks.gpu.results import Results


class Clock:
    """Counts down from when it was made."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


def own_name(part: str, job: str) -> str:
    """The name of the figures of one job, until they go into its part's."""
    return f"{part}-{job}"


class Unavailable(Exception):  # noqa: N818 (nothing went wrong)
    """What a configuration needs is not here: it is skipped, by name."""


class TimeUp(BaseException):
    """Seconds are over. Not an Exception, so that no library takes it for a failure of its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `TimeUp` in what takes longer, as soon as Python is at work again."""

    def over(_signal: int, _frame: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1.0)  # again, if one got lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Attempts:
    """One job's configurations: what breaks or takes too long is noted, and the next one runs.

    Args:
        job: its name, as in `Job`.
        framework: likewise.
        part: that it belongs to.
        options: as the job was asked.
        device: what the framework calls it.
        free: gives back the device memory that no one uses any more.
    """

    def __init__(
        self,
        job: str,
        framework: str,
        part: str,
        options: Options,
        device: str,
        free: Callable[[], object] = lambda: None,
    ) -> None:
        self.clock = Clock(options.seconds)
        self.results = Results(own_name(part, job), options.out, device)
        self.free = free
        self.framework = framework

    def attempt(self, name: str, work: Callable[[], object], seconds: float) -> bool:
        """Does `work` within so many seconds, if they are left; whether it came to its end."""
        if self.clock.left() < min(seconds, 1.0):
            self.results.skip(name, "no time was left")
            return False
        seconds = min(seconds, self.clock.left())
        self.results.update(running=name)
        try:
            with limited(seconds):
                work()
        except TimeUp:
            self.results.skip(name, f"its {seconds:.3g} s were over")
        except Unavailable as why:
            self.results.skip(name, str(why))
        except Exception as error:
            traceback.print_exc()  # the log has all of it
            self.results.fail(name, error)
        else:
            return True
        finally:
            self.results.update(running=None)
            gc.collect()
            self.free()
        return False
