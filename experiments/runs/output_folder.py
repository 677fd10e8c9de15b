"""The folder that --out names: locked, then made, continued, discarded, or refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import processes
from loss_balance.experiments.training.reading import intact, read_json
from loss_balance.experiments.training.run_folder import write_json
from loss_balance.experiments.training.schemes import modern

LOCK = ".command"  # held while a command trains in a folder; each run in it has a `.lock` besides
MOVABLE = ("name", "path", "data path")  # what a folder may be continued with other values of


@contextlib.contextmanager
def output_folder(
    folder: Path,
    config: dict[str, Any],
    discards: Sequence[str],
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[None]:
    """Makes `folder` the one of `config`, which it then holds as config.json, and locks it.

    Args:
        folder: new, empty, or of the same command.
        config: what JSON holds; what is resumed must have begun with the same, but for its name,
            the place of its data, and seeds that are added.
        discards: files and folders in `folder` that go with `overwrite`.
        resume: go on with what is there.
        overwrite: discard what is there.

    Raises:
        UserError: the folder holds something else, or something and neither flag says what to do,
            or another command is training in it. Nothing is changed then.
    """
    if processes.rank() > 0:  # the first process does it for all
        yield
        return
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other: choose one")
    _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_idle(folder)
        if (folder / "config.json").exists():
            _claim(folder, config, discards, resume=resume, overwrite=overwrite)
        write_json(folder / "config.json", config)
        yield


def _check_ours(folder: Path) -> None:
    """UserError if there is something that no command of ours has begun."""
    ours = folder.is_dir() and (
        (folder / "config.json").exists() or not set(_names(folder)) - {LOCK, ".lock"}
    )
    if folder.exists() and not ours:
        raise UserError(f"--out must be a new or empty folder or one of this command, got {folder}")


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        held = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise _busy(folder) from error
    with held:
        yield


def _check_idle(folder: Path) -> None:
    """UserError if a run in the folder is being trained, by whatever command."""
    for file in folder.rglob(".lock"):
        try:
            FileLock(file).acquire(timeout=0).lock.release()
        except Timeout as error:
            raise _busy(file.parent) from error


def _busy(folder: Path) -> UserError:
    return UserError(f"another command is training in {folder}: wait for it, or stop it first")


def _claim(
    folder: Path, config: dict[str, Any], discards: Sequence[str], *, resume: bool, overwrite: bool
) -> None:
    if not (resume or overwrite):
        raise UserError(
            f"{folder} holds runs already: continue it with --resume, discard it with "
            "--overwrite, or choose another --out"
        )
    before = read_json(folder / "config.json", "a command") if resume else _known(folder)
    with intact(folder / "config.json", "a command"):
        before = modern(before)
    if resume:
        _check_same(folder, before, json.loads(json.dumps(config)))
    elif before and set(before) != set(config):
        raise UserError(f"--overwrite discards what this command left, {folder} is another's")
    else:
        _discard(folder, discards)


def _known(folder: Path) -> dict[str, Any]:
    """What is to be discarded; nothing of a file that is damaged, which goes as well."""
    try:
        return read_json(folder / "config.json")
    except UserError:
        return {}


def _discard(folder: Path, names: Sequence[str]) -> None:
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = dict(flattened(before)), dict(flattened(now))
    for key in MOVABLE:
        old.pop(key, None), new.pop(key, None)
    if set(old.get("seeds") or ()) <= set(new.get("seeds") or ()):
        old["seeds"] = new.get("seeds")
    changed = [f"{k} {old.get(k)!r} is now {v!r}" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise UserError(
            f"--resume needs the options that {folder} began with; {'; '.join(changed)}"
        )


def flattened(config: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested names and values, without a network's layers: they follow from its name and data."""
    for key, value in config.items():
        if isinstance(value, dict) and key != "spec":
            yield from flattened(value, f"{prefix}{key} ")
        elif key != "spec":
            yield f"{prefix}{key}", value
