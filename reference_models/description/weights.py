"""Weights that no framework owns: a dict from the spec's names to NumPy arrays.

All arrays of a network are in one dict, the trainable ones and the running statistics.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    shapes = _shapes(spec)
    problems = [f"missing {name}" for name in shapes if name not in weights]
    problems += [f"unknown {name}" for name in weights if name not in shapes]
    for name, shape in shapes.items():
        found = np.shape(weights[name]) if name in weights else shape
        if found != shape:
            problems.append(f"{name} has shape {found}, expected {shape}")
    if problems:
        raise ValueError(f"the weights do not fit {spec.name}: {'; '.join(problems)}")


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


def load(path: str | PathLike[str]) -> Weights:
    """Reads what `save` wrote; never unpickles.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ValueError: it is no .npz file of plain arrays.
    """
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"weights must be an .npz file, {path} is not one or is cut short")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a file of plain arrays: {error}") from error


def _shapes(spec: AnytimeSpec) -> dict[str, tuple[int, ...]]:
    return {**spec.parameters(), **spec.statistics()}
