"""A folder that a command and the workers of its cluster share: is it the same one everywhere?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import Client
from filelock import FileLock, Timeout

import loss_balance
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import check_installed
from loss_balance.experiments.training.loop import Run


@contextlib.contextmanager
def shared_folder(
    client: Client, folder: Path, runs: Sequence[Run], session: str
) -> Iterator[None]:
    """Asks every worker whether it can do its part; within, those that come later can be asked too.

    Raises:
        UserError: a worker sees another folder or no data, ignores our locks, or has another
            version of this package or no framework.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nonce = _nonce(folder, session)
    nonce.write_text(session)
    try:
        frameworks = sorted({run.engine.framework for run in runs})
        data = sorted({str(run.source.path) for run in runs if run.source.path is not None})
        with FileLock(_lock(folder, session)).acquire(timeout=0):
            answers = client.run(
                problem, str(folder), session, loss_balance.__version__, frameworks, data
            )
        for worker, answer in answers.items():
            if answer is not None:
                raise UserError(f"the worker at {worker} {answer}")
        yield
    finally:
        nonce.unlink(missing_ok=True)
        _lock(folder, session).unlink(missing_ok=True)


def problem(
    folder: str, session: str, version: str, frameworks: Sequence[str], data: Sequence[str]
) -> str | None:
    """What a worker lacks, None if nothing; the command holds the lock meanwhile."""
    if loss_balance.__version__ != version:
        return f"must have loss-balance {version}, it has {loss_balance.__version__}"
    try:
        for framework in frameworks:
            check_installed(framework)
    except UserError as error:
        return f"must have the framework: {error}"
    if (missing := unshared(Path(folder), session)) is not None:
        return missing
    for path in data:
        if not Path(path).exists():
            return f"must see the data at {path}, it does not"
    return _ignored_lock(Path(folder), session)


def unshared(folder: Path, session: str) -> str | None:
    """What to say if the folder is another one here than where the command runs."""
    nonce = _nonce(folder, session)
    if nonce.is_file() and nonce.read_text() == session:
        return None
    return f"must see the command's --out at {folder}, it sees another folder or none there"


def _ignored_lock(folder: Path, session: str) -> str | None:
    try:
        with FileLock(_lock(folder, session)).acquire(timeout=0):
            return (
                f"must heed locks in {folder}, it takes one that the command holds: mount that "
                "file system with locks, or choose another --out"
            )
    except Timeout:
        return None


def _nonce(folder: Path, session: str) -> Path:
    return folder / f".{session}"


def _lock(folder: Path, session: str) -> Path:
    return folder / f".{session}.lock"
