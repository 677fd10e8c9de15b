"""The folder that --out names: made, continued, discarded, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.run_folder import write_json
from loss_balance.experiments.training.schemes import modern


def claim_output(
    folder: Path,
    config: dict[str, Any],
    discards: Sequence[str],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Makes `folder` the one of `config`, which it then holds as config.json.

    Args:
        folder: new, empty, or of the same command.
        config: what JSON holds; what is resumed must have begun with the same.
        discards: files and folders in `folder` that go with `overwrite`.
        resume: go on with what is there.
        overwrite: discard what is there.

    Raises:
        UserError: the folder holds something else, or something and neither flag says what to do.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other: choose one")
    file = folder / "config.json"
    if file.exists():
        before = modern(json.loads(file.read_text()))
        if overwrite and set(before) != set(config):
            raise UserError(f"--overwrite discards what this command left, {folder} is another's")
        if overwrite:
            _discard(folder, discards)
        elif not resume:
            raise UserError(
                f"{folder} holds runs already: continue it with --resume, discard it with "
                "--overwrite, or choose another --out"
            )
        else:
            _check_same(folder, before, json.loads(json.dumps(config)))
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out must be a new or empty folder or one of this command, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, config)


def _discard(folder: Path, names: Sequence[str]) -> None:
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = dict(flattened(before)), dict(flattened(now))
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
