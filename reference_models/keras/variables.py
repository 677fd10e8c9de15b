"""Names for the variables of layers that Keras, or the user, has named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras


def named_variables(parts: Mapping[str, keras.layers.Layer]) -> dict[str, keras.Variable]:
    """The weights of all parts, each once, by where they are: "part.block.conv.kernel"."""
    named: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    for part, layer in parts.items():
        for path, variable in _within(layer, part):
            if id(variable) not in seen:
                seen.add(id(variable))
                named[path] = variable
    return named


def wide(variable: keras.Variable) -> str:
    """The dtype to read it in: NumPy has no bfloat16."""
    return "float64" if variable.dtype == "float64" else "float32"


def _within(layer: Any, path: str) -> Iterator[tuple[str, keras.Variable]]:
    inner = list(layer._flatten_layers(include_self=False, recursive=False))
    deeper = {id(variable) for child in inner for variable in child.weights}
    names: Counter[str] = Counter()
    for variable in layer.weights:
        if id(variable) not in deeper:
            yield f"{path}.{_counted(variable.name, names)}", variable
    for child in inner:
        yield from _within(child, f"{path}.{_counted(_own_name(child), names)}")


def _own_name(layer: Any) -> str:
    """Its name, without the number that Keras gave it if that is where it is from."""
    kind = re.sub(r"_\d+$", "", layer.name)
    return kind if kind.replace("_", "") == type(layer).__name__.lower() else str(layer.name)


def _counted(name: str, names: Counter[str]) -> str:
    """The name, with a number behind it if it was there before."""
    names[name] += 1
    return name if names[name] == 1 else f"{name}_{names[name] - 1}"
