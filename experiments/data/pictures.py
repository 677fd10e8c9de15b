"""Image files, of 8 or 16 bits, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loss_balance.experiments.data.dataset import Images
from loss_balance.experiments.errors import UserError

BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read(path: Path, mode: str) -> Image.Image:
    """The image in Pillow's `mode`, "L" or "RGB"; 16 bits are scaled to 8, not cut.

    Raises:
        UserError: there is no such file, or it is no whole image.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
                return Image.fromarray(_eight_bits(np.asarray(image))).convert(mode)
            if image.mode == "F":
                raise ValueError("floating-point pixels, whose range is not known")
            return image.convert(mode)
    except BROKEN as error:
        raise UserError(
            f"{path} must be a whole image, got: {error}. `loss-balance data check` finds all that "
            "are not, --skip-broken trains without them"
        ) from error


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
