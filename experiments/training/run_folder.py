"""What a run leaves on disk, written so that it can be killed at any moment.

`config.json` (what is trained), `metrics.jsonl` (a line per epoch), `checkpoint.npz` (everything
needed to go on), `previous.npz` (the one before it) and, once finished, `weights.npz` (for
`AnytimeNet.load_weights` of any framework), `statistics.npz` (how `preparation` makes an image its
input) and `result.json`. Nothing in it is a pickle. Commands lock `.lock` while they train it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Arrays
from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training.learner import Learner
from loss_balance.experiments.training.schemes import modern
from loss_balance.reference_models.description.weights import load as read_npz

RUN_FILES = (
    "metrics.jsonl",
    "checkpoint.npz",
    "previous.npz",
    "weights.npz",
    "statistics.npz",
    "result.json",
)  # beside config.json


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run: `epoch`, `train_loss` and `loss_weight` per exit."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


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
    elif modern(json.loads(file.read_text())) != json.loads(json.dumps(config)):
        raise UserError(f"{folder} holds another run: choose another --out or use --overwrite")


def save_epoch(folder: Path, epoch: int, losses: NDArray[np.float64], learner: Learner) -> None:
    """The line first, the checkpoint last: what the checkpoint counts is surely there."""
    record = {
        "epoch": epoch + 1,
        "train_loss": losses.tolist(),
        "loss_weight": learner.loss_weights(),
    }
    metrics = folder / "metrics.jsonl"
    before = metrics.read_bytes() if metrics.exists() else b""
    write_atomically(metrics, before + json.dumps(record).encode() + b"\n")
    file = folder / "checkpoint.npz"
    if file.exists():
        _keep(file, folder / "previous.npz")
    write_arrays(file, {"epochs": np.array(epoch + 1), **learner.state()})


def _keep(file: Path, previous: Path) -> None:
    """A second name for the file, which stays when the first one gets new content."""
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(file)
    except OSError:  # a file system without links
        file.replace(previous)


def restore(folder: Path, learner: Learner) -> int:
    """Loads the last checkpoint, drops what came after it, and returns the epochs it counts.

    If it is damaged, the one before it.
    """
    files = [folder / name for name in ("checkpoint.npz", "previous.npz")]
    found = [file for file in files if file.exists()]
    problems = []
    for file in found:
        try:
            arrays = read_npz(file)
            epochs = int(arrays.pop("epochs"))
            learner.load_state(arrays)
        except (ValueError, KeyError) as error:
            problems.append(f"{file} cannot be read ({error})")
        else:
            if problems:
                print(f"{problems[0]}: going on from epoch {epochs}", file=sys.stderr)  # noqa: T201
            _truncate(folder / "metrics.jsonl", epochs)
            return epochs
    if problems:
        raise UserError(f"{'; '.join(problems)}: start anew with --overwrite")
    _truncate(folder / "metrics.jsonl", 0)
    return 0


def _truncate(metrics: Path, epochs: int) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    write_atomically(metrics, b"".join(lines[:epochs]))
