"""SVHN's cropped digits as Netzer et al. (2011) published them: three MATLAB files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Images, Labels, Splits
from loss_balance.experiments.data.download import Published, fetch
from loss_balance.experiments.errors import UserError

HOME = "http://ufldl.stanford.edu/housenumbers"  # no https there; the checksums see to it
PARTS = {  # the checksums are those in TensorFlow Datasets
    "train": Published(
        f"{HOME}/train_32x32.mat",
        "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    "extra": Published(
        f"{HOME}/extra_32x32.mat",
        "sha256:a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
    ),
    "test": Published(
        f"{HOME}/test_32x32.mat",
        "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
}
COUNTS = {"train": 73_257, "extra": 531_131, "test": 26_032}


def read(path: Path, *, download: bool = False, counts: Mapping[str, int] = COUNTS) -> Splits:
    """Train and extra together, 604,388 images as in the paper, and test; images in 8 bits.

    Without extra train alone, with a note.

    Args:
        path: the folder with the three files.
        download: whether to fetch those that are not there, 1.6 GB in all.
        counts: how many images each file must have.

    Raises:
        UserError: files that are missing, cut short or something else; no network.
    """
    for published in PARTS.values():
        if download and not (path / published.file).exists():
            fetch(published, path)
    there = {part for part, published in PARTS.items() if (path / published.file).is_file()}
    missing = [PARTS[part].file for part in PARTS if part not in there]
    if not {"train", "test"} <= there:
        raise UserError(
            f"svhn needs {', '.join(p.file for p in PARTS.values())} in a folder, missing at "
            f"{path}: {', '.join(missing)}; --download fetches them there"
        )
    parts = [part for part in ("train", "extra") if part in there]
    notes: tuple[str, ...] = ()
    if missing:
        notes = (f"without {missing[0]}: {counts['train']:,} training images, not the paper's all",)
    x_train = np.empty((sum(counts[part] for part in parts), 32, 32, 3), np.uint8)
    y_train = np.empty(len(x_train), np.int64)
    start = 0
    for part in parts:  # one after the other: extra alone is 1.6 GB
        stop = start + counts[part]
        x_train[start:stop], y_train[start:stop] = _read(path / PARTS[part].file, counts[part])
        start = stop
    x_test, y_test = _read(path / PARTS["test"].file, counts["test"])
    return Splits(
        x_train,
        y_train,
        np.ascontiguousarray(x_test),
        y_test,
        10,
        class_names=tuple("0123456789"),
        notes=notes,
    )


def _read(file: Path, count: int) -> tuple[Images, Labels]:
    """Images (N, 32, 32, 3), a view, and labels; the published label 10 is the digit 0."""
    x, y = _variables(file)
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, count):
        raise UserError(f"{file}: X must be uint8 (32, 32, 3, {count}), got {x.dtype} {x.shape}")
    if y.dtype.kind not in "uif" or y.shape != (count, 1) or y.min() < 1 or y.max() > 10:
        got = f"{y.min()} to {y.max()}" if y.dtype.kind in "uif" and y.size else y.dtype
        raise UserError(f"{file}: y must be ({count}, 1), from 1 to 10, got {y.shape}, {got}")
    return x.transpose(3, 0, 1, 2), y[:, 0].astype(np.int64) % 10


def _variables(file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    from scipy.io import loadmat  # part of an extra

    try:
        variables = loadmat(file, variable_names=["X", "y"])
        return variables["X"], variables["y"]
    except KeyError as error:
        raise UserError(f"{file} must hold the variables X and y; missing: {error}") from error
    except Exception as error:  # a damaged file makes SciPy raise any
        raise UserError(f"{file} must be a whole MATLAB 5 file, got: {error}") from error
