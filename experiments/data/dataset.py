"""What a data set is: images as they were published, labels, and how to prepare both."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.augment import Augmentation
from loss_balance.experiments.errors import UserError

Images = NDArray[Any]  # uint8 or float32, (N, H, W, C); of a streamed set bytes, (N,): file names
Labels = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]  # what an npz holds, by name
Statistics = tuple[NDArray[np.float32], NDArray[np.float32]]  # (mean, std) to standardise with

SPLIT_SEED = 0  # of every draw that decides which images are where: fixed for good
HELD_OUT = 5000  # training images held out for validation (paper, Section 5.1, footnote 1), or
HELD_OUT_SHARE = 10  # one in ten of them where that is less; of CIFAR both are the same
SIDE = 224  # of the images of a streamed set, once cropped (paper, footnote 2)


class Splits(NamedTuple):
    """What a reader of some format gives."""

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    num_classes: int
    root: Path | None = None  # of a streamed set
    class_names: tuple[str, ...] = ()  # in the order of the labels; none if not known
    notes: tuple[str, ...] = ()  # what a user should know of how the files were read


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images as they were published and labels of both splits, with what standardises them.

    So that 8-bit images can live on the device as such: `augment.augmented` prepares a batch there.
    In a streamed set `x_train` and `x_test` name files under `root`; `stream.batches` reads them.
    """

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    num_classes: int
    mean: NDArray[np.float32]  # (C,) or (H, W, C)
    std: NDArray[np.float32]  # (C,) or (H, W, C)
    augmentation: Augmentation
    root: Path | None = None
    class_names: tuple[str, ...] = ()  # in the order of the labels; none if not known
    notes: tuple[str, ...] = ()  # what a user should know of how the files were read
    skipped: tuple[str, ...] = ()  # files that were left out as broken

    @property
    def streamed(self) -> bool:
        """Whether the images stay on disk until they are needed."""
        return self.root is not None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what a network is given."""
        if self.streamed:
            return SIDE, SIDE, 3
        _, height, width, channels = self.x_train.shape
        return height, width, channels

    def fingerprint(self) -> str:
        """Checksum of all that training sees: a resumed run must see the data it began with.

        Of a streamed set it covers the files' names, not their content.
        """
        crc = zlib.crc32(repr(self.augmentation).encode())
        arrays = (self.x_train, self.y_train, self.x_test, self.y_test, self.mean, self.std)
        for array in arrays:
            crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, crc)
        return f"{crc:08x}"


def hold_out(name: str, splits: Splits) -> Splits:
    """The last tenth of the training images, 5,000 at most, become the test split.

    The test images go unused.

    Raises:
        UserError: there are fewer than ten.
    """
    count = len(splits.y_train)
    held_out = min(HELD_OUT, count // HELD_OUT_SHARE)
    if not held_out:
        raise UserError(
            f"--validation needs at least {HELD_OUT_SHARE} training images, {name} has {count}"
        )
    cut = count - held_out
    return splits._replace(
        x_train=splits.x_train[:cut],
        y_train=splits.y_train[:cut],
        x_test=splits.x_train[cut:],
        y_test=splits.y_train[cut:],
    )


def per_channel(x: Images) -> Statistics:
    """Mean and standard deviation of each channel, for zero mean and unit variance, (C,)."""
    mean = _mean_image(x).mean(axis=(0, 1))
    squares = sum(((part - mean) ** 2).sum(axis=0) for part in _widened(x))
    std = np.sqrt((squares / len(x)).mean(axis=(0, 1))).astype(np.float32)
    return mean.astype(np.float32), np.where(std > 0, std, np.float32(1))


def per_pixel(x: Images) -> Statistics:
    """The mean image (H, W, C) and 128, as in the authors' code.

    The paper does not say how images are standardised; subtracting the mean image is He et al.'s
    way, which it cites. The authors' code takes the mean over test images too, here it is over the
    training images alone.
    """
    return _mean_image(x).astype(np.float32), np.full(x.shape[-1], 128, np.float32)


def _mean_image(x: Images) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum([part.sum(axis=0) for part in _widened(x)], axis=0)
    return total / len(x)


def _widened(x: Images, size: int = 1024) -> Iterator[NDArray[np.float64]]:
    """The images in float64, a few at a time: all of SVHN would be 15 GB."""
    for start in range(0, len(x), size):
        yield x[start : start + size].astype(np.float64)
