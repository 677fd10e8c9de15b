"""What a run leaves on disk, written so that it can be killed at any moment.

`config.json` (what is trained), `environment.json` (with which versions, on what, at each start),
`metrics.jsonl` (a line per epoch), `checkpoint.npz` (everything needed to go on), `previous.npz`
(the one before it), `best.npz` (the one of the least mean test error over the exits, where epochs
were evaluated) and, once finished, `weights.npz` (for `AnytimeNet.load_weights` of any framework),
`statistics.npz` (how `preparation` makes an image its input) and `result.json`. Nothing in it is a
pickle. Commands lock `.lock` while they train it. `reading` reads it all back.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Arrays
from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training.identity import essence
from loss_balance.experiments.training.learners.interface import Learner
from loss_balance.experiments.training.reading import DAMAGED, intact, read_json, read_metrics
from loss_balance.experiments.training.schemes import modern
from loss_balance.reference_models.description.weights import load as read_npz

RUN_FILES = (
    "environment.json",
    "metrics.jsonl",
    "checkpoint.npz",
    "previous.npz",
    "best.npz",
    "weights.npz",
    "statistics.npz",
    "result.json",
)  # beside config.json


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """The file is the old one or the new one, wherever the process dies.

    Raises:
        UserError: the disk is full; the old file stays.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full, {path} could not be written: free some space, then --resume"
            ) from error
        raise
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, as `write_atomically` does."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an npz as `write_atomically` does."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getbuffer())


@contextlib.contextmanager
def alone(folder: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    """Waits until no other process is in here with the same folder; its death lets go of it.

    Raises:
        Interruption: `stopped` came true before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    while not stopped():
        try:
            held = lock.acquire(timeout=0.2)
        except Timeout:
            continue
        with held:
            yield
        return
    raise Interruption


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Makes the folder this run's, or refuses if it is another's."""
    file = folder / "config.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
    elif essence(modern(read_json(file))) != essence(config):
        raise UserError(f"{folder} holds another run: choose another --out or use --overwrite")


def note_environment(folder: Path, now: dict[str, Any]) -> None:
    """Adds what the run goes on with, unless it is what it ran with before."""
    file = folder / "environment.json"
    with intact(file):
        before = list(json.loads(file.read_text())) if file.exists() else []
    if now not in before[-1:]:
        write_json(file, [*before, now])


def save_epoch(folder: Path, record: dict[str, Any], state: Arrays) -> None:
    """The line first, the checkpoint last: what the checkpoint counts is surely there."""
    metrics = folder / "metrics.jsonl"
    best = "test_error" in record and sum(record["test_error"]) < _least_error(folder)
    before = metrics.read_bytes() if metrics.exists() else b""
    write_atomically(metrics, before + json.dumps(record).encode() + b"\n")
    file = folder / "checkpoint.npz"
    if file.exists():
        _keep(file, folder / "previous.npz")
    write_arrays(file, {"epochs": np.array(record["epoch"]), **state})
    if best:
        _keep(file, folder / "best.npz")


def _least_error(folder: Path) -> float:
    """The least sum of the exits' test errors after any epoch so far."""
    if not (folder / "metrics.jsonl").exists():
        return math.inf
    errors = (sum(epoch["test_error"]) for epoch in read_metrics(folder) if "test_error" in epoch)
    return min(errors, default=math.inf)


def _keep(file: Path, other: Path) -> None:
    """A second name for the file, which stays when the first one gets new content."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(file)
    except OSError:  # a file system without links
        shutil.copyfile(file, other)


def restore(folder: Path, learner: Learner, *, mends: bool = True) -> int:
    """Loads the last checkpoint, drops what came after it, and returns the epochs it counts.

    If it is damaged, the one before it. Without `mends` nothing is dropped.
    """
    files = [folder / name for name in ("checkpoint.npz", "previous.npz")]
    found = [file for file in files if file.exists()]
    problems = []
    for file in found:
        try:
            arrays = read_npz(file)
            epochs = _epochs(folder, arrays.pop("epochs"))
            learner.load_state(arrays)
        except (OSError, *DAMAGED) as error:
            problems.append(f"{file} cannot be read ({error})")
        else:
            if problems and mends:
                print(f"{problems[0]}: going on from epoch {epochs}", file=sys.stderr)  # noqa: T201
            if mends:
                _truncate(folder / "metrics.jsonl", epochs)
            return epochs
    if problems:
        raise UserError(f"{'; '.join(problems)}: start anew with --overwrite")
    if mends:
        _truncate(folder / "metrics.jsonl", 0)
    return 0


def _epochs(folder: Path, counted: NDArray[Any]) -> int:
    """How many epochs a checkpoint counts, of which there must be a line each.

    A line more, or half of one, is what a death before the checkpoint left: it goes.
    """
    metrics = folder / "metrics.jsonl"
    known = len(metrics.read_bytes().splitlines()) if metrics.exists() else 0
    if counted.shape or counted.dtype.kind not in "ui" or not 1 <= int(counted) <= known:
        raise ValueError(f"it counts {counted} epochs of {known}")
    return int(counted)


def _truncate(metrics: Path, epochs: int) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    write_atomically(metrics, b"".join(lines[:epochs]))
