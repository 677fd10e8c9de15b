"""Scikit-learn's bundled digits, alone and overlaid in pairs: data that need no download."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import SPLIT_SEED, Images, Labels, Splits

CLASSES = tuple("0123456789")


def digits() -> Splits:
    """1,797 handwritten digits, 8x8, 10 classes; a quarter of them for testing."""
    from sklearn.datasets import load_digits  # two seconds that other data sets need not wait

    bunch = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(bunch.target))
    x = bunch.images[order, :, :, None].astype(np.uint8)  # whole numbers from 0 to 16
    y = bunch.target[order].astype(np.int64)
    cut = len(y) * 3 // 4
    return Splits(x[:cut], y[:cut], x[cut:], y[cut:], 10, class_names=CLASSES)


def digit_pairs(train: int = 6000, test: int = 2000) -> Splits:
    """Two digits overlaid in a 12x12 image; the label is the unordered pair of their classes.

    Hard enough that the exits of a network differ, small enough for a laptop, and made from
    scikit-learn's bundled digits without a download. 55 classes: 00, 01, ..., 09, 11, ..., 99.
    """
    single = digits()
    rng = np.random.default_rng(SPLIT_SEED)
    x_train, y_train = _overlay(single.x_train, single.y_train, train, rng)
    x_test, y_test = _overlay(single.x_test, single.y_test, test, rng)
    names = tuple(low + high for low, high in combinations_with_replacement(CLASSES, 2))
    return Splits(x_train, y_train, x_test, y_test, 55, class_names=names)


def pair_labels(low: Labels, high: Labels) -> Labels:
    """Numbers the pairs 00, 01, ..., 09, 11, ..., 99 of digits low <= high from 0 to 54."""
    return low * 10 - low * (low - 1) // 2 + high - low


def _overlay(
    x: NDArray[Any], y: Labels, count: int, rng: np.random.Generator, side: int = 12
) -> tuple[Images, Labels]:
    """`count` images of two digits each, the pixelwise maximum, at places drawn from `rng`."""
    digit = x.shape[1]
    images = np.zeros((count, side, side, 1), x.dtype)
    members = rng.integers(len(y), size=(count, 2))
    corners = rng.integers(side - digit + 1, size=(count, 2, 2))
    for image, chosen, places in zip(images, members, corners, strict=True):
        for k, (top, left) in zip(chosen, places, strict=True):
            window = image[top : top + digit, left : left + digit]
            np.maximum(window, x[k], out=window)
    low, high = np.sort(y[members], axis=1).T
    return images, pair_labels(low, high)
