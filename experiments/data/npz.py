"""Data sets in one npz: x_train, y_train, x_test, y_test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Images, Labels, Splits
from loss_balance.experiments.errors import UserError
from loss_balance.reference_models.description.weights import load as read_npz

ARRAYS = ["x_train", "y_train", "x_test", "y_test"]


def read(path: Path) -> Splits:
    """Images (N, H, W, C) or (N, H, W), kept in 8 bits where they are so; labels (N,).

    Raises:
        UserError: no such file, not an npz, arrays missing or of the wrong shape.
    """
    arrays = _arrays(path)
    x_train, y_train = _checked_split(path, "train", arrays)
    x_test, y_test = _checked_split(path, "test", arrays)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{path}: x_train and x_test must hold images of one shape, got "
            f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        )
    if x_train.dtype != x_test.dtype:
        x_train, x_test = x_train.astype(np.float32), x_test.astype(np.float32)
    num_classes = int(y_train.max()) + 1
    if y_test.max() >= num_classes:
        raise UserError(
            f"{path}: y_test must hold classes that y_train has (0 to {num_classes - 1}), "
            f"got {y_test.max()}"
        )
    return Splits(x_train, y_train, x_test, y_test, num_classes)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise UserError(f"no file {path}: give the npz of the data set with --path")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise UserError(f"{path} must be an npz of plain arrays, made by np.savez") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise UserError(f"{path} must hold the arrays {ARRAYS}; missing: {missing}")
    return arrays


def _checked_split(
    path: Path, split: str, arrays: dict[str, NDArray[Any]]
) -> tuple[Images, Labels]:
    """Images (N, H, W, C) and labels of one split, or the rule that they break."""
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    x = x[..., None] if x.ndim == 3 else x
    rule = got = ""
    if x.ndim != 4 or x.dtype.kind not in "uif" or not all(x.shape):
        rule, got = f"x_{split} must be images (N, H, W, C) or (N, H, W)", f"{x.dtype} {x.shape}"
    elif y.shape != x.shape[:1] or y.dtype.kind not in "ui":
        rule, got = f"y_{split} must be {len(x)} whole numbers", f"{y.dtype} {y.shape}"
    elif x.dtype.kind == "f" and not np.isfinite(x).all():
        rule, got = f"x_{split} must be finite", "NaN or infinity"
    elif y.min() < 0:
        rule, got = f"y_{split} must hold classes from 0 on", str(y.min())
    if rule:
        raise UserError(f"{path}: {rule}, got {got}")
    return x if x.dtype == np.uint8 else x.astype(np.float32), y.astype(np.int64)
