"""How a folder of deployment files comes to be: whole and equal to its network, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.exports.about import FILE, STATISTICS

Array = NDArray[np.float32]
TOLERANCE = 1e-5  # of the largest logit
TRACED, CHECKED = 2, 3  # images in the batches


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: where.
        sizes: bytes of each file or folder in it, by name.
        difference: the largest one to the network's logits, as a share of the largest logit.
    """

    folder: Path
    sizes: dict[str, int]
    difference: float


@contextlib.contextmanager
def new_folder(
    folder: str | os.PathLike[str], statistics: Path | None, *, overwrite: bool
) -> Iterator[Path]:
    """A temporary folder beside, which takes the place of `folder` if all within goes well.

    Args:
        folder: new or empty, or with `overwrite` one that an export left, which then goes.
        statistics: a file that is copied into it.
        overwrite: whether an earlier export may go.

    Raises:
        ValueError: it is something else. Nothing is changed then, nor if what is within raises.
    """
    folder = Path(folder).resolve()
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = _beside(folder)
    made.mkdir()
    try:
        if statistics is not None:
            shutil.copyfile(statistics, made / STATISTICS)
        yield made
        _take_place(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def check_free(folder: Path, *, overwrite: bool) -> None:
    """ValueError unless an export may be written there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / FILE).is_file():
        raise ValueError(
            f"an export must go into a new or empty folder or one of an export, got {folder}"
        )
    if not overwrite:
        raise ValueError(
            f"{folder} holds an export already: discard it with overwrite, or choose another folder"
        )


def _take_place(made: Path, folder: Path) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    before = _beside(folder)
    folder.rename(before)
    try:
        made.rename(folder)
    except OSError:
        before.rename(folder)
        raise
    shutil.rmtree(before)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file or folder in it, by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        found[path.name] = sum(file.stat().st_size for file in files)
    return found


def random_images(count: int, shape: Shape, seed: int = 0) -> Array:
    """Standard normal images (B, H, W, C)."""
    return np.random.default_rng(seed).standard_normal((count, *shape), np.float32)


def largest_difference(
    images: Array,
    expected: Sequence[Array],
    segments: Sequence[Callable[[list[Array]], Sequence[Array]]],
    exits: Sequence[Callable[[Array], Array]],
    tolerance: float = TOLERANCE,
) -> float:
    """How far what was written is from its network, as a share of the largest logit.

    Args:
        images: (B, H, W, C).
        expected: logits (B, num_classes) of each exit, by the network.
        segments: each takes maps and gives (*maps handed on, logits), as read back.
        exits: each takes images and gives logits, as read back.
        tolerance: the share that it may be.

    Raises:
        RuntimeError: it is more, or no number, or logits of another shape.
    """
    largest, maps = 0.0, [images]
    for k, (segment, alone, wanted) in enumerate(zip(segments, exits, expected, strict=True)):
        *maps, logits = segment(maps)
        for what, found in ((f"segment{k}", logits), (f"exit{k}", alone(images))):
            if found.shape != wanted.shape:
                raise RuntimeError(
                    f"{what} must give logits {wanted.shape} as the network does, its file gives "
                    f"{found.shape}: nothing was written"
                )
            scale = np.abs(wanted).max() or 1.0
            difference = float(np.abs(found - wanted).max() / scale)
            if not difference <= tolerance:
                raise RuntimeError(
                    f"{what} must give the network's logits to {tolerance:g} of the largest one, "
                    f"its file is {difference:.2g} off: nothing was written"
                )
            largest = max(largest, difference)
    return largest
