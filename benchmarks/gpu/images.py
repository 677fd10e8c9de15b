"""Real images for a machine without a network: they come packed, each as a file of its own format.

A packed set is an npz with, for "train" and "test", `<split>_bytes` (files one after the other),
`<split>_offsets` (where each begins, and the end) and `<split>_labels`.

python -m benchmarks.gpu.images PACKED.npz OUT.npz --train 40000 --test 10000

writes the first so many of a packed set, still packed: what travels to the machine must be small.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.experiments.data.sources import Source

SPLITS = ("train", "test")
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
        arrays = {f"x_{split}": _decoded(content, split) for split in SPLITS}
        arrays |= {f"y_{split}": content[f"{split}_labels"] for split in SPLITS}
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


def subset(packed: Path, out: Path, counts: Mapping[str, int]) -> None:
    """Writes the first `counts[split]` images of each split, as they are.

    Raises:
        ValueError: there are fewer, or none is asked for.
    """
    arrays = {}
    with np.load(packed) as content:
        for split in SPLITS:
            there, count = len(content[f"{split}_labels"]), counts[split]
            if not 0 < count <= there:
                raise ValueError(f"{split} must be 1 to {there} images of {packed}, got {count}")
            offsets = content[f"{split}_offsets"][: count + 1]
            arrays[f"{split}_offsets"] = offsets
            arrays[f"{split}_bytes"] = content[f"{split}_bytes"][: offsets[-1]]
            arrays[f"{split}_labels"] = content[f"{split}_labels"][:count]
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, allow_pickle=False, **arrays)


def main() -> None:
    """Reads the command line and writes the smaller set."""
    parser = argparse.ArgumentParser(description="The first images of a packed set, still packed.")
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, required=True, help="images")
    given = parser.parse_args()
    try:
        subset(given.packed, given.out, {split: getattr(given, split) for split in SPLITS})
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
