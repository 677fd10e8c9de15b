"""CIFAR-10 and CIFAR-100 as Krizhevsky (2009) published them: the binary or the python archive."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.dataset import Images, Labels, Splits
from loss_balance.experiments.data.download import Published, fetch
from loss_balance.experiments.data.unpickling import unpickle
from loss_balance.experiments.errors import UserError

LARGEST = 200_000_000  # bytes; the largest file of either set has 155 million
PIXELS = 3 * 32 * 32  # of an image: all its red, then green, then blue, each row by row
HOME = "https://www.cs.toronto.edu/~kriz"
Records = tuple[NDArray[Any], NDArray[Any]]  # pixels (N, PIXELS) and labels (N,)


def binary(content: bytes, label_bytes: int) -> Records:
    """Records of `label_bytes` and an image's bytes; the last label byte is the class.

    Raises:
        ValueError: the rule that the content breaks, as "hold ..., got ...".
    """
    size = label_bytes + PIXELS
    if not content or len(content) % size:
        raise ValueError(f"hold whole records of {size} bytes, got {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def python(content: bytes, label_key: str) -> Records:
    """A pickled dict of an array and a list of labels; read without running anything.

    Raises:
        ValueError: likewise.
    """
    batch = unpickle(content)
    if not isinstance(batch, dict):
        raise ValueError(f"hold a dict, got a {type(batch).__name__}")
    named = {k.decode(errors="replace") if isinstance(k, bytes) else k: batch[k] for k in batch}
    if "data" not in named or label_key not in named:
        raise ValueError(f"have the keys data and {label_key}, got {sorted(map(str, named))}")
    try:
        pixels, labels = np.array(named["data"]), np.array(named[label_key])
    except (ValueError, TypeError) as error:
        raise ValueError(f"hold an array and a list of whole numbers, got: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS or not pixels.size:
        raise ValueError(f"hold data as uint8 (N, {PIXELS}), got {pixels.dtype} {pixels.shape}")
    if labels.dtype.kind not in "ui" or labels.shape != pixels.shape[:1]:
        raise ValueError(f"hold {len(pixels)} labels, got {labels.dtype} {labels.shape}")
    return pixels, labels


@dataclass(frozen=True)
class Layout:
    """The files of one set in one of its archives."""

    archive: Published
    folder: str  # inside the archive
    train: tuple[str, ...]
    test: str
    parse: Callable[[bytes], Records]

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the set."""
        return (*self.train, self.test)


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """One of the two CIFAR sets."""

    name: str
    num_classes: int
    layouts: tuple[Layout, ...]  # the first is the one to download
    train_images: int = 50_000
    test_images: int = 10_000
    class_names: tuple[str, ...] = ()


# The checksums are those on the home page (MD5) and in TensorFlow Datasets (SHA-256).
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    layouts=(
        Layout(
            Published(
                f"{HOME}/cifar-10-binary.tar.gz",
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            "cifar-10-batches-bin",
            tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test_batch.bin",
            partial(binary, label_bytes=1),
        ),
        Layout(
            Published(f"{HOME}/cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),
            "cifar-10-batches-py",
            tuple(f"data_batch_{i}" for i in range(1, 6)),
            "test_batch",
            partial(python, label_key="labels"),
        ),
    ),
    class_names=tuple(CIFAR10_CLASSES.split()),
)
CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    layouts=(
        Layout(
            Published(
                f"{HOME}/cifar-100-binary.tar.gz",
                "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            "cifar-100-binary",
            ("train.bin",),
            "test.bin",
            partial(binary, label_bytes=2),  # one of 20 superclasses, then the class
        ),
        Layout(
            Published(f"{HOME}/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),
            "cifar-100-python",
            ("train",),
            "test",
            partial(python, label_key="fine_labels"),
        ),
    ),
)


def read(cifar: Cifar, path: Path, *, download: bool = False) -> Splits:
    """Both splits, images in 8 bits.

    Args:
        cifar: which set.
        path: a .tar.gz as published, the folder it unpacks to, or a folder with either in it.
        download: whether to put the binary archive into the folder `path` if it has neither.

    Raises:
        UserError: files that are missing, cut short or something else; no network.
    """
    found = _find(cifar, path)
    if found is None and download:
        fetch(cifar.layouts[0].archive, path)
        found = _find(cifar, path)
    if found is None:
        archives = " or ".join(layout.archive.file for layout in cifar.layouts)
        raise UserError(
            f"{cifar.name} needs {archives}, or what it unpacks to, found neither at {path}: "
            "--download fetches it there"
        )
    place, layout, contents = found
    missing = [name for name in layout.files if name not in contents]
    if missing:
        raise UserError(f"{place} must hold {', '.join(layout.files)}; missing: {missing}")
    records = {name: _parsed(cifar, layout, name, contents[name], place) for name in contents}
    x_train, y_train = _joined(records, layout.train, place, cifar.train_images)
    x_test, y_test = _joined(records, (layout.test,), place, cifar.test_images)
    return Splits(
        x_train, y_train, x_test, y_test, cifar.num_classes, class_names=cifar.class_names
    )


def _find(cifar: Cifar, path: Path) -> tuple[Path, Layout, dict[str, bytes]] | None:
    """The first folder or archive that has files of this set, and those."""
    for layout in cifar.layouts:
        inside = (path, path / layout.folder, path / layout.archive.file)
        for place in (path,) if path.is_file() else inside:
            contents = _contents(place, layout.files)
            if contents:
                return place, layout, contents
    return None


def _contents(place: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The files that are in a folder or an archive; none if it is neither."""
    if place.is_dir():
        return {name: (place / name).read_bytes() for name in names if (place / name).is_file()}
    if not place.is_file():
        return {}
    contents = {}
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                name = Path(member.name).name
                if name not in names:
                    continue
                if not member.isreg() or member.size > LARGEST:
                    kind = f"{member.size} bytes" if member.isreg() else "no plain file"
                    raise UserError(
                        f"{place} must hold plain files of at most {LARGEST} bytes, got {kind} at "
                        f"{member.name}"
                    )
                file = archive.extractfile(member)
                assert file is not None  # a plain file has content
                contents[name] = file.read()
            while archive.fileobj and archive.fileobj.read(1 << 20):
                pass  # only at its end does gzip compare its checksum
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{place} must be a whole .tar.gz archive, got: {error}") from error
    return contents


def _parsed(cifar: Cifar, layout: Layout, name: str, content: bytes, place: Path) -> Records:
    try:
        pixels, labels = layout.parse(content)
        if labels.min() < 0 or labels.max() >= cifar.num_classes:
            raise ValueError(
                f"hold classes from 0 to {cifar.num_classes - 1}, "
                f"got {labels.min()} to {labels.max()}"
            )
    except ValueError as error:
        raise UserError(f"{name} in {place} must {error}") from error
    return pixels, labels


def _joined(
    records: dict[str, Records], names: tuple[str, ...], place: Path, count: int
) -> tuple[Images, Labels]:
    """Images (N, 32, 32, 3) and labels of some files, if they are all that were published."""
    pixels, labels = (np.concatenate([records[n][k] for n in names]) for k in (0, 1))
    if len(labels) != count:
        raise UserError(
            f"{', '.join(names)} in {place} must hold {count} images, got {len(labels)}"
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)
