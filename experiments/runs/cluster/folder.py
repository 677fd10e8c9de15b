"""What a command and the workers of its cluster must share: a folder above all, the same one."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed import Client
from filelock import FileLock, Timeout

import loss_balance
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import check_installed
from loss_balance.experiments.training.loop import Run

SESSION = "loss-balance-"  # begins the name of each


@dataclass(frozen=True)
class Needs:
    """What the command of a session has, and every worker must have too."""

    folder: Path
    session: str
    version: str
    frameworks: tuple[str, ...]
    data: tuple[Path, ...]

    @property
    def nonce(self) -> Path:
        """A file in which the session's name is, as long as the command lives."""
        return self.folder / f".{self.session}"

    @property
    def lock(self) -> Path:
        """What the command locks as long as it lives."""
        return self.folder / f".{self.session}.lock"


def needs_of(runs: Sequence[Run], folder: Path, session: str) -> Needs:
    """Those of these runs; `folder` and the paths of their data are absolute."""
    frameworks = {run.engine.framework for run in runs}
    data = {run.source.path for run in runs if run.source.path is not None}
    return Needs(folder, session, _version(), tuple(sorted(frameworks)), tuple(sorted(data)))


@contextlib.contextmanager
def shared_folder(client: Client, needs: Needs, runs: Sequence[Run]) -> Iterator[None]:
    """Asks every worker whether it can do its part; within, those that come later can be asked too.

    Raises:
        UserError: one cannot; nothing is trained then.
    """
    _check_scheduler(client, needs.version)
    needs.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(needs.lock).acquire(timeout=0):
            needs.nonce.write_text(needs.session)
            _sweep(needs.folder)
            answers = client.run(problem, needs, pickle.dumps(runs), on_error="return")
            for worker, answer in answers.items():
                if isinstance(answer, BaseException):  # without this package, or without rights
                    answer = f"must have loss-balance {needs.version} and reach --out: {answer!r}"
                if answer is not None:
                    raise UserError(f"the worker at {worker} {answer}")
            yield
    finally:
        needs.nonce.unlink(missing_ok=True)
        needs.lock.unlink(missing_ok=True)


def _check_scheduler(client: Client, version: str) -> None:
    """UserError unless it has this package too: it unpickles what is sent to workers."""
    try:
        found = client.run_on_scheduler(_version)
    except Exception as error:  # whatever comes of unpickling something unknown
        found = repr(error)
    if found != version:
        raise UserError(f"the scheduler must have loss-balance {version}, it answers {found}")


def _version() -> str:
    return str(loss_balance.__version__)


def _sweep(folder: Path) -> None:
    """Removes what commands left that were killed: nobody holds their locks."""
    for lock in folder.glob(f".{SESSION}*.lock"):
        with contextlib.suppress(Timeout), FileLock(lock).acquire(timeout=0):
            lock.with_suffix("").unlink(missing_ok=True)
            lock.unlink()


def problem(needs: Needs, runs: bytes) -> str | None:
    """What a worker lacks for pickled runs, None if nothing; a command that lives holds the lock.

    It begins with "must", for the worker's name to stand before it.
    """
    if loss_balance.__version__ != needs.version:
        return f"must have loss-balance {needs.version}, it has {loss_balance.__version__}"
    try:
        for framework in needs.frameworks:
            check_installed(framework)
    except UserError as error:
        return f"must have the framework: {error}"
    for path in needs.data:
        if not path.exists():
            return f"must see the data at {path}, it does not"
    try:
        pickle.loads(runs)
    except Exception as error:  # the user's modules may raise anything
        return f"must be able to import what is trained: {type(error).__name__}: {error}"
    return _unshared(needs) or _ignored_lock(needs)


def _unshared(needs: Needs) -> str | None:
    """What to say if the folder is another one here than where the command runs."""
    if needs.nonce.is_file() and needs.nonce.read_text() == needs.session:
        return None
    return f"must see the command's --out at {needs.folder}, it sees another folder or none there"


def _ignored_lock(needs: Needs) -> str | None:
    try:
        with FileLock(needs.lock).acquire(timeout=0):
            return (
                f"must heed locks in {needs.folder}, it takes one that the command holds: mount "
                "that file system with locks, or choose another --out"
            )
    except Timeout:
        return None
