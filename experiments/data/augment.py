"""Pad-and-crop, flip and blur, on the device, with the same random numbers in every framework.

What is random is drawn in NumPy, a few numbers per image (`draws`). What is done with it
(`augmented`) is pure array code over a namespace `xp` (`numpy`, `torch`, `jax.numpy` or
`tensorflow`): eager or traced, without a branch on a value, so it can be part of a compiled step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_balance.checks import check_count, check_range
from loss_balance.schemes.base import Array, Namespace

NARROWEST = 0.1  # pixels; a blur of that deviation changes no 8-bit image


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, in this order; each is off by default.

    Args:
        pad: images are framed by that many zeros, black before standardising, and cropped to their
            size at one of the (2 pad + 1)^2 places (Lee et al. 2015). The authors' code never draws
            the last row and column of places.
        flip: every second image is mirrored left to right.
        blur: images are blurred by a Gaussian whose standard deviation is drawn from 0.1 to `blur`
            pixels; 0 is none. The paper blurs SVHN without saying how much. The authors' code has
            no blur: it bends images and changes their brightness and contrast.
    """

    pad: int = 0
    flip: bool = False
    blur: float = 0.0

    def __post_init__(self) -> None:
        if self.pad != 0:
            check_count("pad", self.pad)
        if self.blur != 0:
            check_range("blur", self.blur, NARROWEST)

    @property
    def reach(self) -> int:
        """How many pixels to either side the widest blur takes in: three deviations."""
        return math.ceil(3 * self.blur)


AUGMENTATIONS = {
    "none": Augmentation(),
    "crop-flip": Augmentation(pad=4, flip=True),
    "crop-blur": Augmentation(pad=4, blur=1.0),
}


class Draws(NamedTuple):
    """The random numbers of n images; row i belongs to the i-th image of the epoch."""

    top: Array  # (n,), int32, row of the padded image where the crop begins
    left: Array  # (n,), int32, likewise its column
    flip: Array  # (n,), bool
    taps: Array  # (n, 2 reach + 1), float32, the blur along one axis


class Constants(NamedTuple):
    """What `augmented` needs beside the draws, the same for all batches of a data set."""

    mean: Array  # (C,) or (H, W, C), float32
    std: Array  # (C,) or (H, W, C), float32
    rows: Array  # (H + 2 reach,), int32, the image's row at each row of a crop at 0
    columns: Array  # (W + 2 reach,), int32
    mirrored: Array  # (W + 2 reach,), int32, `columns` of a flipped image


def draws(augmentation: Augmentation, seed: int, epoch: int, count: int) -> Draws:
    """NumPy arrays for the first `count` images of an epoch.

    A function of seed, epoch and the place in the epoch alone: `count` changes no number, and a
    resumed run goes on as if never interrupted.
    """
    places = 2 * augmentation.pad + 1
    top = generator(seed, epoch, 1).integers(places, size=count, dtype=np.int32)
    left = generator(seed, epoch, 2).integers(places, size=count, dtype=np.int32)
    flip = generator(seed, epoch, 3).random(count) < (0.5 if augmentation.flip else 0.0)
    return Draws(top, left, flip, _taps(augmentation, generator(seed, epoch, 4), count))


def generator(seed: int, epoch: int, *purpose: int) -> np.random.Generator:
    """Independent random numbers for each purpose from 1 on; 0 would be `epoch_order`'s."""
    return np.random.default_rng([seed, epoch, *purpose])


def constants(
    augmentation: Augmentation,
    input_shape: tuple[int, int, int],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> Constants:
    """NumPy arrays, for the learner to move to its device: `Constants(*map(to_device, ...))`."""
    height, width, _ = input_shape
    rows, columns = (_clamped(side, augmentation.reach) for side in (height, width))
    pad = np.int32(augmentation.pad)
    return Constants(mean, std, rows - pad, columns - pad, np.int32(width - 1) - columns - pad)


def augmented(
    images: Array, index: Array, draws: Draws, constants: Constants, xp: Namespace
) -> Array:
    """A batch of training images, cropped, flipped, blurred and standardised.

    Args:
        images: the whole split, (N, H, W, C), uint8 or float32.
        index: (B,), which of them to take, whole numbers of the same type as those of the draws
            and constants: int32 for fewer than 2^31 pixels, else int64 (which TensorFlow on a GPU
            is faster with, for it keeps int32 on the host).
        draws: the batch's rows of `draws`.
        constants: of the data set.
        xp: the arrays' namespace.

    Returns:
        (B, H, W, C), float32. Call it outside of autocast: 16 bits would round the pixels.
    """
    _, height, width, _ = images.shape
    rows = draws.top[:, None] + constants.rows
    columns = xp.where(draws.flip[:, None], constants.mirrored, constants.columns)
    pixels = _gather(images, index, rows, draws.left[:, None] + columns, xp)
    taps = draws.taps[:, :, None, None, None]
    span = range(draws.taps.shape[1])
    down = sum(taps[:, k] * pixels[:, k : k + height] for k in span)
    across = sum(taps[:, k] * down[:, :, k : k + width] for k in span)
    return (across - constants.mean) / constants.std


def standardised(images: Array, constants: Constants, xp: Namespace) -> Array:
    """Images (B, H, W, C) for evaluation: nothing random, float32."""
    return (_float32(images, xp) - constants.mean) / constants.std


def _gather(images: Array, index: Array, rows: Array, columns: Array, xp: Namespace) -> Array:
    """Pixels at (image, row, column), zero beyond the image's edge, (B, rows, columns, C)."""
    _, height, width, channels = images.shape
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    row = xp.where(row_inside, rows, 0)[:, :, None]
    column = xp.where(column_inside, columns, 0)[:, None, :]
    place = (index[:, None, None] * height + row) * width + column
    pixels = _take(xp.reshape(images, (-1, channels)), place, xp)
    inside = row_inside[:, :, None, None] & column_inside[:, None, :, None]
    return pixels * _float32(inside, xp)


def _take(pixels: Array, place: Array, xp: Namespace) -> Array:
    """The pixels, of (P, C), at those places, in the shape of `place` and C."""
    if hasattr(xp, "gather_nd"):  # TensorFlow does not index by arrays
        return _float32(xp.gather(pixels, place), xp)
    if hasattr(xp, "index_select"):  # in PyTorch on a CPU seven times as fast as indexing
        return xp.index_select(pixels, 0, place.reshape(-1)).reshape(*place.shape, -1)
    return pixels[place]


def _float32(x: Array, xp: Namespace) -> Array:
    """Only TensorFlow must be told; elsewhere 8 bits or bool and float32 make float32."""
    return xp.cast(x, "float32") if hasattr(xp, "gather_nd") else x


def _clamped(side: int, reach: int) -> NDArray[np.int32]:
    """0 to side - 1, and `reach` times more of both ends: a blur repeats the crop's rim."""
    clamped: NDArray[np.int32] = np.clip(np.arange(-reach, side + reach), 0, side - 1)
    return clamped.astype(np.int32)


def _taps(augmentation: Augmentation, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Gaussians of drawn width that sum to 1; a single 1 where nothing is blurred."""
    reach = augmentation.reach
    if not reach:
        return np.ones((count, 1), np.float32)
    deviation = rng.uniform(NARROWEST, augmentation.blur, (count, 1))
    taps: NDArray[np.float64] = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    taps /= taps.sum(axis=1, keepdims=True)
    return taps.astype(np.float32)
