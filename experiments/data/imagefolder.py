"""ILSVRC and its like: a folder per class with image files in it, under train and val."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import SPLIT_SEED, Labels, Splits, Statistics
from loss_balance.experiments.errors import UserError

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")

# Of ILSVRC's training images, in the range 0 to 255; the authors' code has them too.
STATISTICS: Statistics = (
    np.array([0.485, 0.456, 0.406], np.float32) * 255,
    np.array([0.229, 0.224, 0.225], np.float32) * 255,
)


def read(path: Path) -> Splits:
    """The names of all images; `stream.batches` reads the images themselves.

    Classes are numbered as their folders sort. Training images come in an order drawn once and for
    all, so that the last ones, which --validation holds out, are of all classes.

    Raises:
        UserError: no folder train or val, no classes or images in it, another class in val.
    """
    for split in ("train", "val"):
        if not (path / split).is_dir():
            raise UserError(
                f"{path} must hold the folders train and val, with a folder of images for each "
                f"class in both; missing: {split}"
            )
    notes: list[str] = []
    classes = _folders(path / "train")
    unknown = sorted(set(_folders(path / "val")) - set(classes))
    if unknown:
        raise UserError(f"{path / 'val'} must hold classes that train has, got {unknown[0]}")
    x_train, y_train = _listed(path, "train", classes, notes)
    x_test, y_test = _listed(path, "val", classes, notes)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(y_train))
    return Splits(
        x_train[order],
        y_train[order],
        x_test,
        y_test,
        len(classes),
        path,
        tuple(classes),
        tuple(notes),
    )


def without(splits: Splits, skip: tuple[str, ...]) -> Splits:
    """The splits without those files.

    Raises:
        UserError: a class has no training images left, or none of the test images is.
    """
    if not skip:
        return splits
    names = [os.fsencode(name) for name in skip]
    train, test = (~np.isin(x, names) for x in (splits.x_train, splits.x_test))
    left = splits._replace(
        x_train=splits.x_train[train],
        y_train=splits.y_train[train],
        x_test=splits.x_test[test],
        y_test=splits.y_test[test],
    )
    if len(np.unique(left.y_train)) < splits.num_classes or not len(left.y_test):
        raise UserError(
            f"--skip-broken must leave images of each class, {splits.root} has too many broken ones"
        )
    return left


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        folders = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not folders:
        raise UserError(f"{path} must hold a folder of images for each class, got none")
    return folders


def _listed(
    path: Path, split: str, classes: list[str], notes: list[str]
) -> tuple[NDArray[np.bytes_], Labels]:
    """Names relative to `path`, sorted, and labels; a note on files that are left out."""
    names: list[bytes] = []
    labels: list[int] = []
    others: Counter[str] = Counter()
    for label, name in enumerate(classes):
        folder = path / split / name
        if split == "val" and not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            shown = [e.name for e in entries if not e.name.startswith(".")]
        files = sorted(file for file in shown if file.lower().endswith(SUFFIXES))
        others += Counter(Path(file).suffix for file in set(shown) - set(files))
        if not files:
            raise UserError(f"{folder} must hold images ({', '.join(SUFFIXES)}), got none")
        names += [os.fsencode(f"{split}/{name}/{file}") for file in files]
        labels += [label] * len(files)
    if others:
        counted = ", ".join(
            f"{n} {suffix or 'without suffix'}" for suffix, n in others.most_common()
        )
        notes.append(f"{split} has files that are no images by their names, left out: {counted}")
    return np.array(names), np.array(labels, np.int64)
