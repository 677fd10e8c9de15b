"""Arrays that users bring, as this package has them: read right, with a word on it, or refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Images, Labels

SPANS = (1.0, 16.0, 255.0)  # what white usually is; 16 in scikit-learn's digits
APART = 8.0  # times the largest pixel of one split in the other: 255 against 16 is 16
CHANNELS = (1, 3, 4)  # how many a picture has


class Classes(NamedTuple):
    """Labels of both splits, counted from 0."""

    train: Labels
    test: Labels
    number: int
    names: tuple[str, ...]  # what the labels were, where they were others
    notes: tuple[str, ...]


def images(split: str, x: NDArray[Any]) -> Images:
    """Images (N, H, W, C), 8 bits kept, else float32, 16 bits scaled to 8; of (N, H, W) too.

    Raises:
        ValueError: the rule that `x` breaks, and what it is.
    """
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or x.dtype.kind not in "uif" or not all(x.shape):
        raise ValueError(
            f"x_{split} must be images (N, H, W, C) or (N, H, W), got {x.dtype} {x.shape}"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"x_{split} must be finite, got NaN or infinity")
    if x.shape[1] in CHANNELS and x.shape[3] not in CHANNELS and min(x.shape[2:]) > max(CHANNELS):
        raise ValueError(
            f"x_{split} must have its channels last, (N, H, W, C), got {x.shape}, which looks like "
            "channels first: numpy.moveaxis(x, 1, -1) puts them last"
        )
    if x.dtype == np.uint16 and x.max() > 255:  # pictures of 16 bits, as `pictures` reads files
        return (x / 257.0).astype(np.float32)
    return x if x.dtype == np.uint8 else x.astype(np.float32)


def white(x: NDArray[Any]) -> float:
    """The least usual value of white that holds all pixels; NaN if they are no picture's."""
    if x.dtype == np.uint8 and x.max() > 16:
        return 255.0
    low, high = float(x.min()), float(x.max())
    return next((span for span in SPANS if low >= 0 and high <= span), float("nan"))


def check_alike(x_train: Images, x_test: Images) -> None:
    """ValueError unless both splits hold images of one shape, type and range."""
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            "x_train and x_test must hold images of one shape, got "
            f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        )
    both_8_bits = x_train.dtype == x_test.dtype == np.uint8
    least, most = sorted(float(np.abs(x).max()) for x in (x_train, x_test))
    negative = [bool((x < 0).any()) for x in (x_train, x_test)]
    other_scale = least > 0 and most / least > APART
    other_type = x_train.dtype != x_test.dtype and negative[0] != negative[1]
    if not both_8_bits and (other_scale or other_type):
        found = (f"{x.dtype} from {x.min():g} to {x.max():g}" for x in (x_train, x_test))
        raise ValueError(
            f"x_train and x_test must have one range of values, got {' and '.join(found)}"
        )


def classes(y_train: NDArray[Any], y_test: NDArray[Any], counts: tuple[int, int]) -> Classes:
    """Labels from any whole numbers: columns (N, 1), one-hot (N, K), whole floats, with gaps.

    Raises:
        ValueError: the rule that they break, and what they are.
    """
    notes: list[str] = []
    pair = [
        _whole(f"y_{split}", y, count, notes)
        for split, y, count in zip(("train", "test"), (y_train, y_test), counts, strict=True)
    ]
    if y_train.ndim == 2 and y_train.shape[1] > 1:
        if y_test.ndim == 2 and y_test.shape[1] not in (1, y_train.shape[1]):
            raise ValueError(
                f"y_test must have as many columns as y_train, {y_train.shape[1]}, got "
                f"{y_test.shape[1]}"
            )
        known = np.arange(y_train.shape[1])
    else:
        known = np.unique(pair[0])
    foreign = np.setdiff1d(pair[1], known)
    if foreign.size:
        raise ValueError(
            f"y_test must hold classes that y_train has ({known[0]} to {known[-1]}), got "
            f"{foreign[0]}"
        )
    names: tuple[str, ...] = ()
    if not np.array_equal(known, np.arange(len(known))):
        names = tuple(map(str, known))
        notes.append(
            f"labels are {len(known)} different numbers from {known[0]} to {known[-1]}: they "
            f"became classes 0 to {len(known) - 1} in that order"
        )
    train, test = (np.searchsorted(known, y).astype(np.int64) for y in pair)
    return Classes(train, test, len(known), names, tuple(dict.fromkeys(notes)))


def _whole(name: str, y: NDArray[Any], count: int, notes: list[str]) -> Labels:
    """(N,), whole numbers."""
    given = f"{y.dtype} {y.shape}"
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "uifb" or y.shape[:1] != (count,) or y.ndim not in (1, 2):
        raise ValueError(f"{name} must be {count} whole numbers, got {given}")
    if not np.isfinite(y).all() or (y != np.rint(y)).any():
        raise ValueError(f"{name} must be {count} whole numbers, got others in {given}")
    if y.ndim == 2:
        if ((y != 0) & (y != 1)).any() or (y.sum(axis=1) != 1).any():
            raise ValueError(
                f"{name} of two dimensions must be one-hot, a single 1 in each row, got {given}"
            )
        notes.append(f"labels are one-hot: the column of the 1 is the class, {y.shape[1]} in all")
        y = y.argmax(axis=1)
    if y.size and (y.min() < -(2**53) or y.max() > 2**53):
        raise ValueError(f"{name} must be within 2**53, got {y.min()} to {y.max()}")
    labels: Labels = y.astype(np.int64)
    return labels
