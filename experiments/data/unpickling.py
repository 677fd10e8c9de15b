"""Reads pickles that hold arrays and plain containers, and refuses all others.

The one place where a pickle is read, for Krizhevsky published CIFAR as pickles too. A pickle is a
program that may call whatever it can name. Here it can name the five things with which NumPy spells
an array, and gets this module's own in their place: none of NumPy's code runs on its word.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpickle(content: bytes) -> Any:
    """What was pickled: dicts, lists, tuples, strings, bytes, numbers, and what `np.array` takes.

    Strings of Python 2 become bytes.

    Raises:
        ValueError: no pickle, one cut short, or one that names anything else; nothing has run.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any
        raise ValueError(
            f"be a whole pickle of arrays and plain containers, got: {error}"
        ) from error


class _Type:
    """`numpy.dtype`, of numbers alone."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.code = (order.decode() if isinstance(order, bytes) else order) + self.code

    def checked(self) -> np.dtype[Any]:
        """What it stands for."""
        dtype = np.dtype(self.code)
        if dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {dtype}")
        return dtype


class _Array:
    """`numpy.ndarray`: empty at first, then filled."""

    array: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _from_buffer(raw, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype, copy=copy)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: bytes, dtype: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(raw, dtype.checked()).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2; other codecs may unpack to any size."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the codec {encoding}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    # before and since NumPy 2
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None
