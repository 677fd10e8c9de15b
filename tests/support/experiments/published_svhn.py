"""Tiny SVHN files, built from the home page's description."""

from __future__ import annotations

import numpy as np
from scipy.io import savemat

COUNTS = {"train": 4, "extra": 7, "test": 3}


def images(count):
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def labels(count):
    return np.arange(count) % 10  # the digits


def written(folder, compressed=True):
    """As published: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    for part, count in COUNTS.items():
        y = labels(count)
        y = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        x = np.moveaxis(images(count), 0, -1)
        savemat(folder / f"{part}_32x32.mat", {"X": x, "y": y}, do_compression=compressed)
    return folder
