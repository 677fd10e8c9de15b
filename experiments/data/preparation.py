"""How an image becomes the input of a trained network: kept in the run's folder beside the weights.

So that a run answers for images of its own kind without the data it was trained on.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from loss_balance.experiments.data import pictures
from loss_balance.experiments.data.conformed import white
from loss_balance.experiments.data.dataset import Arrays, Dataset
from loss_balance.experiments.errors import UserError
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.weights import load as read_npz

LARGEST = 1 << 26  # bytes of statistics.npz: a mean image, names of classes
MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels


@dataclass(frozen=True)
class Preparation:
    """What `statistics.npz` holds."""

    mean: NDArray[np.float32]  # (C,) or (H, W, C)
    std: NDArray[np.float32]  # (C,) or (H, W, C)
    white: float  # the value that an image file's 255 stands for, NaN if images are no pictures
    streamed: bool  # the set was read from image files, cut out as `stream.crop_evaluation` does
    class_names: tuple[str, ...]  # in the order of the labels; none if not known

    def arrays(self) -> Arrays:
        """The arrays of an npz; `read` is the inverse."""
        return {
            "mean": self.mean,
            "std": self.std,
            "white": np.array(self.white),
            "streamed": np.array(self.streamed),
            "class_names": np.array(self.class_names, dtype=np.str_),
        }

    def standardise(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """(x - mean) / std of images (N, H, W, C), in the training images' own values."""
        standardised: NDArray[np.float32] = (x.astype(np.float32) - self.mean) / self.std
        return standardised

    def open(self, path: Path, shape: Shape) -> NDArray[np.float32]:
        """A standardised image (1, H, W, C) from a file.

        Args:
            path: an image, scaled until it covers `shape` and cropped in the centre; or a .npy
                (H, W, C) or (H, W) of exactly that shape, in the training images' own values.
            shape: (height, width, channels) of the network's input.

        Raises:
            UserError: no such file, or none that fits.
        """
        if not path.is_file():
            raise UserError(f"no file {path}: IMAGE is an image, a .npy or a test image, test:17")
        if path.suffix == ".npy":
            return self.standardise(_array(path, path, shape)[None])
        mode = self._mode(path, shape)
        return self.standardise(self._fitted(pictures.read(path, mode), shape)[None])

    def decode(self, data: bytes, shape: Shape) -> NDArray[np.float32]:
        """As `open`, from the content of a file that anyone may have made.

        Raises:
            NoPictureError: it is in no format that is read.
            UserError: it does not fit.
        """
        if data.startswith(np.lib.format.MAGIC_PREFIX):
            return self.standardise(_array(io.BytesIO(data), "the image", shape)[None])
        mode = self._mode("the image", shape)
        return self.standardise(self._fitted(pictures.decode(data, mode), shape)[None])

    def _mode(self, name: object, shape: Shape) -> str:
        """Pillow's mode of the pictures that the network takes."""
        if np.isnan(self.white) or shape[2] not in MODES:
            raise UserError(
                f"{name} must be a .npy, for this network was not trained on pictures of "
                "1 or 3 channels"
            )
        return MODES[shape[2]]

    def _fitted(self, picture: Image.Image, shape: Shape) -> NDArray[np.float32]:
        """The picture cut to the input's shape, in the training images' own values."""
        height, width, _ = shape
        if self.streamed:
            from loss_balance.experiments.data.stream import (
                crop_evaluation,  # loads grain: a second
            )

            fitted = crop_evaluation(picture)
        else:
            fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(fitted, np.float32).reshape(shape)
        return pixels * np.float32(self.white / 255)


def preparation_for(data: Dataset) -> Preparation:
    """A data set's preparation; white is the least usual one that holds all training pixels."""
    span = 255.0 if data.streamed else white(data.x_train)
    return Preparation(data.mean, data.std, span, data.streamed, data.class_names)


def read(path: Path, shape: Shape) -> Preparation:
    """Reads `statistics.npz` of a network whose input has that shape.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        arrays = read_npz(path, limit=LARGEST)
        for name in ("mean", "std"):
            if arrays[name].shape not in (shape[2:], shape) or arrays[name].dtype != np.float32:
                found = f"{name} {arrays[name].dtype} {arrays[name].shape}"
                raise ValueError(f"{found} for images {shape}")
        if not np.isfinite(arrays["mean"]).all() or not (arrays["std"] > 0).all():
            raise ValueError("a mean that is not finite or a deviation that is not positive")
        return Preparation(
            arrays["mean"],
            arrays["std"],
            float(arrays["white"]),
            bool(arrays["streamed"]),
            tuple(map(str, arrays["class_names"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must be as a finished run leaves it, got: {error}") from error


def _array(file: Path | io.BytesIO, name: object, shape: Shape) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{name} must be one array of numbers, got: {error}") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.shape != shape or array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise UserError(
            f"{name} must hold finite numbers of shape {shape}, got {array.dtype} {array.shape}"
        )
    return array
