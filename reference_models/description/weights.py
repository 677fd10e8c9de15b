"""Weights that no framework owns: a dict from the spec's names to NumPy arrays.

All arrays of a network are in one dict, the trainable ones and the running statistics.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.reference_models.description.own import NetSpec
from loss_balance.reference_models.description.spec import AnytimeSpec

Weights = dict[str, NDArray[Any]]


def initialise(spec: AnytimeSpec, seed: int) -> Weights:
    """Fresh weights in float32: kernels N(0, 2 / fan_in) (He et al. 2015), no bias, unit scale.

    Drawn in NumPy, so every framework starts equal. A kernel depends on `seed`, its name and its
    shape alone: `spec.single_exit(k)` starts from the same values as `spec`.
    """
    return {name: _fresh(name, shape, seed) for name, shape in _shapes(spec).items()}


def _fresh(name: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    field = name.rpartition(".")[2]
    if field == "kernel":
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        deviation = math.sqrt(2.0 / math.prod(shape[:-1]))
        return generator.standard_normal(shape, np.float32) * np.float32(deviation)
    return np.full(shape, {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}[field], np.float32)


def check(spec: AnytimeSpec, weights: Mapping[str, Any]) -> None:
    """Nothing if `weights` fit the network.

    Raises:
        ValueError: one message with all names that are missing, unknown or of another shape.
    """
    check_shapes(spec, {name: np.shape(value) for name, value in weights.items()})


def check_shapes(spec: NetSpec, found: Mapping[str, tuple[int, ...]]) -> None:
    """As `check`, of shapes by name."""
    check_fit(spec.name, _shapes(spec), found)


def check_fit(
    name: str, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """As `check`, of shapes by name and those of a network called `name`."""
    problems = [f"missing {each}" for each in shapes if each not in found]
    problems += [f"unknown {each}" for each in found if each not in shapes]
    for each, shape in shapes.items():
        if found.get(each, shape) != shape:
            problems.append(f"{each} has shape {found[each]}, expected {shape}")
    if problems:
        raise ValueError(f"the weights do not fit {name}: {'; '.join(problems)}")


def save(path: str | PathLike[str], weights: Mapping[str, Any]) -> None:
    """Writes an .npz file at exactly `path`.

    Raises:
        ValueError: an array of Python objects, which could not be read back.
    """
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise ValueError(f"weights must be arrays of numbers, these are of objects: {objects}")
    with Path(path).open("wb") as file:  # given a name, NumPy would append .npz
        np.savez(file, **arrays)  # type: ignore[arg-type]


def shapes_in(path: str | PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of an .npz file's arrays by name, read from their headers; nothing is unpacked.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it is no .npz file of plain arrays.
    """
    with _opened(path) as file:
        return _headers(file, memory())


def load(path: str | PathLike[str], limit: int | None = None) -> Weights:
    """Reads what `save` wrote; never unpickles.

    Args:
        path: the file.
        limit: bytes that its arrays may have together, else it is not unpacked; by default this
            machine's memory.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it is no .npz file of plain arrays, or they are too large.
    """
    with _opened(path) as file:
        _headers(file, memory() if limit is None else limit)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


@contextlib.contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """The file, if it is a zip; whatever is wrong inside is a ValueError."""
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"weights must be an .npz file, {path} is not one or is cut short")
        file.seek(0)
        try:
            yield file
        except (
            ValueError,
            EOFError,
            NotImplementedError,  # a packing that Python does not know
            RuntimeError,  # an encrypted member
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ValueError(f"{path} is not a file of plain arrays: {error}") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # that is a member said to begin before the file does
                raise
            raise ValueError(f"{path} is not a file of plain arrays: {error}") from error


def _headers(file: IO[bytes], limit: int) -> dict[str, tuple[int, ...]]:
    """Shapes; ValueError unless each member is as long as its header says and all within limit."""
    total, shapes = 0, {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as packed:
                shape, dtype = _header(packed)
                said = packed.tell() + math.prod(shape) * dtype.itemsize
            if said != member.file_size:
                raise ValueError(f"{member.filename} must be {said} bytes, got {member.file_size}")
            shapes[member.filename.removesuffix(".npy")] = shape
            total += said
    if total > limit:
        raise ValueError(f"its arrays must be at most {limit} bytes, got {total}")
    return shapes


def _header(packed: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a member's header says."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(packed)
    if version not in readers:
        raise ValueError(f"npy versions 1.0 and 2.0 are plain arrays, got {version}")
    shape, _, dtype = readers[version](packed)
    if dtype.hasobject:
        raise ValueError("arrays of Python objects are not read")
    return shape, dtype


def memory() -> int:
    """Bytes of this machine's memory; where the system does not say, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def _shapes(spec: NetSpec) -> dict[str, tuple[int, ...]]:
    return {**spec.parameters(), **spec.statistics()}
