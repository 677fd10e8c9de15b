"""Real images for a machine without a network: they come packed, each as a file of its own format.

A packed set is an npz with, for "train" and "test", `<split>_bytes` (files one after the other),
`<split>_offsets` (where each begins, and the end) and `<split>_labels`.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.experiments.data import Source

CHUNK = 500  # images decoded by one task


class SkipPart(Exception):  # noqa: N818 (nothing went wrong)
    """There is nothing to train on."""


def source_of(file: str | None, *, smallest: bool) -> Source:
    """The images to train on: an npz, packed or not, or for the smallest setting the digits.

    Raises:
        SkipPart: there is no such file.
    """
    if smallest and not file:
        return Source("digits")
    if not file or not Path(file).is_file():
        raise SkipPart(f"DATA must name an npz of images, packed or not, got {file!r}")
    path = Path(file).resolve()
    with np.load(path) as content:
        if "train_bytes" in content:
            path = unpacked(content, f"{path.stem}-{zlib.crc32(path.read_bytes()):08x}")
    return Source("npz", path, augment="crop-flip")


def unpacked(content: Any, name: str) -> Path:
    """The decoded images, in a file that the next call finds: its path is part of the runs."""
    target = Path(tempfile.gettempdir()) / "loss-balance-images" / f"{name}.npz"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"x_{split}": _decoded(content, split) for split in ("train", "test")}
        arrays |= {f"y_{split}": content[f"{split}_labels"] for split in ("train", "test")}
        beside = target.with_suffix(".part.npz")
        np.savez(beside, allow_pickle=False, **arrays)
        beside.replace(target)
    return target


def _decoded(content: Any, split: str) -> np.ndarray:
    """Shape (N, H, W, 3), uint8."""
    from PIL import Image

    data, offsets = content[f"{split}_bytes"].tobytes(), content[f"{split}_offsets"]

    def decode(first: int) -> list[np.ndarray]:
        ends = offsets[first : first + CHUNK + 1]
        files = (io.BytesIO(data[a:b]) for a, b in pairwise(ends))
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]

    with ThreadPoolExecutor() as pool:  # decoding leaves Python to others
        chunks = pool.map(decode, range(0, len(offsets) - 1, CHUNK))
        return np.stack([image for chunk in chunks for image in chunk])
