"""Reads pickles that hold arrays and plain containers, and refuses all others.

The one place where a pickle is read, for Krizhevsky published CIFAR as such. A pickle is a program
that may call whatever it can name; here it can name five things, and none of them does harm.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np


def unpickle(content: bytes) -> Any:
    """What was pickled: arrays, dicts, lists, tuples, strings, bytes and numbers.

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


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2; other codecs may unpack to any size."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the codec {encoding}")
    return text.encode("latin1")


_array = np.zeros(1)
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    # NumPy's own functions for arrays, under their names before and since NumPy 2
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): _array.__reduce__()[0]
        for core in ("core", "_core")
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): _array.__reduce_ex__(5)[0]
        for core in ("core", "_core")
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None
