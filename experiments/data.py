"""Data sets as NumPy arrays, so that every framework reads the same: images (N, H, W, C)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.errors import UserError
from loss_balance.reference_models.weights import load as read_npz

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
SPLIT_SEED = 0  # which digits are test digits, and where digit-pairs puts them: fixed for good


@dataclass(frozen=True)
class Dataset:
    """Standardised images, float32 (N, H, W, C), and labels, int64 (N,), of both splits."""

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.x_train.shape
        return height, width, channels

    def fingerprint(self) -> str:
        """Checksum of all arrays: a resumed run must see the data it began with."""
        crc = 0
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        return f"{crc:08x}"


def load(name: str, path: Path | None = None) -> Dataset:
    """The data set called `name`; `npz` needs the `path` of its file.

    Raises:
        UserError: unknown name, missing or foreign file.
    """
    if name == "npz":
        if path is None:
            raise UserError("data set npz needs its file: --data npz --path FILE.npz")
        return from_npz(path)
    if name not in BUNDLED:
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(NAMES)}")
    if path is not None:
        raise UserError(f"--path goes with --data npz, {name} comes with scikit-learn")
    return BUNDLED[name]()


def digits() -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8x8, 10 classes; a quarter of them for testing."""
    x_train, y_train, x_test, y_test = _split_digits()
    return standardised("digits", x_train, y_train, x_test, y_test, 10)


def digit_pairs(train: int = 6000, test: int = 2000) -> Dataset:
    """Two digits overlaid in a 12x12 image; the label is the unordered pair of their classes.

    Hard enough that the exits of a network differ, small enough for a laptop, and made from
    scikit-learn's bundled digits without a download. 55 classes: 00, 01, ..., 09, 11, ..., 99.
    """
    x_train, y_train, x_test, y_test = _split_digits()
    rng = np.random.default_rng(SPLIT_SEED)
    pairs = (*_overlay(x_train, y_train, train, rng), *_overlay(x_test, y_test, test, rng))
    return standardised("digit-pairs", *pairs, 55)


def _split_digits() -> tuple[NDArray[np.float64], Labels, NDArray[np.float64], Labels]:
    from sklearn.datasets import load_digits  # two seconds that other data sets need not wait

    bunch = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(bunch.target))
    x, y = bunch.images[order, :, :, None], bunch.target[order].astype(np.int64)
    cut = len(y) * 3 // 4
    return x[:cut], y[:cut], x[cut:], y[cut:]


def _overlay(
    x: NDArray[np.float64], y: Labels, count: int, rng: np.random.Generator, side: int = 12
) -> tuple[NDArray[np.float64], Labels]:
    """`count` images of two digits each, the pixelwise maximum, at places drawn from `rng`."""
    digit = x.shape[1]
    images = np.zeros((count, side, side, 1))
    members = rng.integers(len(y), size=(count, 2))
    corners = rng.integers(side - digit + 1, size=(count, 2, 2))
    for image, chosen, places in zip(images, members, corners, strict=True):
        for k, (top, left) in zip(chosen, places, strict=True):
            window = image[top : top + digit, left : left + digit]
            np.maximum(window, x[k], out=window)
    low, high = np.sort(y[members], axis=1).T
    return images, pair_labels(low, high)


def pair_labels(low: Labels, high: Labels) -> Labels:
    """Numbers the pairs 00, 01, ..., 09, 11, ..., 99 of digits low <= high from 0 to 54."""
    return low * 10 - low * (low - 1) // 2 + high - low


def standardised(
    name: str,
    x_train: NDArray[Any],
    y_train: Labels,
    x_test: NDArray[Any],
    y_test: Labels,
    num_classes: int,
) -> Dataset:
    """Zero mean and unit variance per channel over the training images."""
    train, test = x_train.astype(np.float32), x_test.astype(np.float32)
    mean = train.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    std = train.std(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    std = np.where(std > 0, std, np.float32(1))
    return Dataset(name, (train - mean) / std, y_train, (test - mean) / std, y_test, num_classes)


def from_npz(path: Path) -> Dataset:
    """Reads x_train, y_train, x_test, y_test: images (N, H, W, C) or (N, H, W), labels (N,).

    Raises:
        UserError: no such file, not an npz, arrays missing or of the wrong shape.
    """
    arrays = _read(path)
    x_train, y_train = _checked_split(path, "train", arrays)
    x_test, y_test = _checked_split(path, "test", arrays)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{path}: x_train and x_test must hold images of one shape, got "
            f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        )
    num_classes = int(y_train.max()) + 1
    if y_test.max() >= num_classes:
        raise UserError(
            f"{path}: y_test must hold classes that y_train has (0 to {num_classes - 1}), "
            f"got {y_test.max()}"
        )
    return standardised(path.stem, x_train, y_train, x_test, y_test, num_classes)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    wanted = ["x_train", "y_train", "x_test", "y_test"]
    if not path.is_file():
        raise UserError(f"no file {path}: give the npz of the data set with --path")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise UserError(f"{path} must be an npz of plain arrays, made by np.savez") from error
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise UserError(f"{path} must hold the arrays {wanted}; missing: {missing}")
    return arrays


def _checked_split(
    path: Path, split: str, arrays: dict[str, NDArray[Any]]
) -> tuple[NDArray[Any], Labels]:
    """Images (N, H, W, C) and labels of one split, or the rule that they break."""
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    x = x[..., None] if x.ndim == 3 else x
    rule = got = ""
    if x.ndim != 4 or x.dtype.kind not in "uif" or not all(x.shape):
        rule, got = f"x_{split} must be images (N, H, W, C) or (N, H, W)", f"{x.dtype} {x.shape}"
    elif y.shape != x.shape[:1] or y.dtype.kind not in "ui":
        rule, got = f"y_{split} must be {len(x)} whole numbers", f"{y.dtype} {y.shape}"
    elif not np.isfinite(x).all():
        rule, got = f"x_{split} must be finite", "NaN or infinity"
    elif y.min() < 0:
        rule, got = f"y_{split} must hold classes from 0 on", str(y.min())
    if rule:
        raise UserError(f"{path}: {rule}, got {got}")
    return x, y.astype(np.int64)


BUNDLED: dict[str, Callable[[], Dataset]] = {"digit-pairs": digit_pairs, "digits": digits}
NAMES = (*BUNDLED, "npz")
