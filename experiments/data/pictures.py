"""Image files, of 8 or 16 bits, read one at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from loss_balance.experiments.data.dataset import Images
from loss_balance.experiments.errors import UserError

# Of what Pillow reads: nothing that calls another program, as EPS does.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 1 << 26  # 200 MB in RGB
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class NoPictureError(UserError):
    """Content in no format that is read."""


def read(path: Path, mode: str) -> Image.Image:
    """The image in Pillow's `mode`, "L" or "RGB"; 16 bits are scaled to 8, not cut.

    Raises:
        UserError: there is no such file, or it is no whole image.
    """
    try:
        with Image.open(path) as image:
            return _converted(image, mode)
    except BROKEN as error:
        raise UserError(
            f"{path} must be a whole image, got: {error}. `loss-balance data check` finds all that "
            "are not, --skip-broken trains without them"
        ) from error


def decode(data: bytes, mode: str) -> Image.Image:
    """As `read`, from the content of a file that anyone may have made: of `FORMATS` alone.

    Raises:
        NoPictureError: it is in none of these formats.
        UserError: it is no whole image, or has more than `MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # known before anything is unpacked
                raise ValueError(f"{image.width} x {image.height} pixels, over {MOST_PIXELS:,}")
            return _converted(image, mode)
    except UnidentifiedImageError as error:
        raise NoPictureError(f"an image must be one of {', '.join(FORMATS)}") from error
    except (*BROKEN, Image.DecompressionBombWarning) as error:
        raise UserError(f"an image must be whole and of usual size, got: {error}") from error


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        return Image.fromarray(_eight_bits(np.asarray(image))).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    return image.convert(mode)


def broken(root: Path, names: Images) -> Iterator[tuple[str, str]]:
    """(name, what is wrong with it) of each file under `root` that is no whole image."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        files = [os.fsdecode(name) for name in names]
        for name, problem in zip(files, pool.map(lambda n: _problem(root / n), files), strict=True):
            if problem:
                yield name, problem


def _problem(path: Path) -> str:
    try:
        read(path, "RGB")
    except UserError as error:
        return str(error.__cause__)
    return ""


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"pixels from {pixels.min()} to {pixels.max()}, which are not 16 bits")
    return np.rint(pixels / 257.0).astype(np.uint8)
