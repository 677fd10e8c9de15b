"""Data sets in one npz: x_train, y_train, x_test, y_test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.conformed import check_alike, classes, images
from loss_balance.experiments.data.dataset import Splits
from loss_balance.experiments.errors import UserError
from loss_balance.reference_models.description.weights import load as read_npz

ARRAYS = ["x_train", "y_train", "x_test", "y_test"]


def read(path: Path) -> Splits:
    """Images (N, H, W, C) or (N, H, W), kept in 8 bits where they are so; any labels.

    Raises:
        UserError: no such file, not an npz, arrays missing or not as they must be.
    """
    arrays = _arrays(path)
    try:
        x_train, x_test = (images(split, arrays[f"x_{split}"]) for split in ("train", "test"))
        check_alike(x_train, x_test)
        if x_train.dtype != x_test.dtype:
            x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
        y = classes(arrays["y_train"], arrays["y_test"], (len(x_train), len(x_test)))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return Splits(x_train, y.train, x_test, y.test, y.number, class_names=y.names, notes=y.notes)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise UserError(f"no file {path}: give the npz of the data set with --path")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise UserError(
            f"{path} must be an npz of plain arrays, made by np.savez, got: {error}"
        ) from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise UserError(f"{path} must hold the arrays {ARRAYS}; missing: {missing}")
    return arrays
