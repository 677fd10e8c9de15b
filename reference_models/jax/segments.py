"""What JAX computes between two exits, compiled once, and which samples go on to the next."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from loss_balance.reference_models.description.inputs import positions


class Segment:
    """Parts from one exit to the next, and its head.

    Given modules, `jax.jit` walks through all of them in Python at every call, which takes as long
    as a small network computes. A segment does that once, and again only if an attribute of any
    module has been replaced; at a call it reads the variables' present values.

    Args:
        parts: modules, in order.
        head: a module.
        last: whether no segment follows.
        read: what of the features the head is given; the coarsest maps by default.
    """

    def __init__(
        self,
        parts: list[Any],
        head: Any,
        last: bool,
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        self.last: bool = last
        self._modules, self._read = (parts, head), read or coarsest
        self._taken = _take_apart(self._modules)

    def __call__(self, features: Any) -> tuple[Any, Array]:
        """(what the next segment reads, or None if there is none, the exit's logits)."""
        taken = self._taken
        if not all(map(operator.is_, _attributes(taken.owned), taken.attributes)):
            self._taken = taken = _take_apart(self._modules)
        arrays = [variable.get_raw_value() for variable in taken.variables]
        found: tuple[Any, Array] = _run(
            taken.structure, arrays, features, last=self.last, read=self._read
        )
        return found


@dataclass(frozen=True)
class Unpacked:
    """A segment that takes its maps as arguments and gives (*maps for the next one, logits)."""

    run: Segment
    listed: bool  # whether it takes a list of maps, even if only one

    def __call__(self, *maps: Any) -> tuple[Array, ...]:
        features, logits = self.run(list(maps) if self.listed else maps[0])
        return (*jax.tree.leaves(features), logits)  # of None there are none


class _Taken(NamedTuple):
    """Modules as they were when last taken apart."""

    owned: list[dict[str, Any]]  # of each module what it has, live
    attributes: list[Any]  # and what that was
    variables: list[nnx.Variable[Any]]
    structure: _Structure


def _take_apart(modules: Any) -> _Taken:
    owned = [vars(module) for module in _within(modules)]
    variables = jax.tree.leaves(modules, is_leaf=lambda node: isinstance(node, nnx.Variable))
    structure = _Structure(jax.tree.structure(modules))
    return _Taken(owned, list(_attributes(owned)), variables, structure)


def _attributes(owned: list[dict[str, Any]]) -> Iterator[Any]:
    """The attributes of all modules, with an end: a sequence that goes on is not the same."""
    return chain(chain.from_iterable(map(dict.values, owned)), (_END,))


_END = object()


def _within(node: Any) -> Iterator[Any]:
    """All modules in modules and lists."""
    if isinstance(node, nnx.Module):
        yield node
        node = list(vars(node).values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _within(child)


@dataclass(frozen=True)
class _Structure:
    """Modules without their arrays, whose hash is computed once."""

    modules: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.modules))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Structure) and self.modules == other.modules)


@partial(jax.jit, static_argnums=0, static_argnames=("last", "read"))
def _run(
    structure: _Structure,
    arrays: list[Array],
    features: Any,
    *,
    last: bool,
    read: Callable[[Any], Any],
) -> tuple[Any, Array]:
    modules = jax.tree.unflatten(structure.modules, arrays)
    parts, head = nnx.view(
        modules, use_running_average=True, deterministic=True, raise_if_not_found=False
    )
    for part in parts:
        features = part(features)
    # Not returned, maps that no exit reads are not computed either.
    return None if last else features, head(read(features))


def coarsest(features: Any) -> Any:
    """The maps that heads read, of one scale or several."""
    return features[-1] if isinstance(features, list) else features


# Of living networks. As an attribute it would be part of a network's structure.
_MADE: WeakKeyDictionary[nnx.Module, tuple[list[Any], list[Segment]]] = WeakKeyDictionary()


def segments_of(
    net: nnx.Module, parts: list[Any], make: Callable[[], list[Segment]]
) -> list[Segment]:
    """What lies between exits of a network, made once: anew only if a part has been replaced."""
    known, segments = _MADE.get(net, ([], []))
    if len(parts) == len(known) and all(map(operator.is_, parts, known)):
        return segments
    segments = make()
    _MADE[net] = parts, segments
    return segments


def answers(segments: list[Segment], x: Array) -> Generator[Array, Any, None]:
    """The logits of each segment's exit; `send` takes the samples to go on with."""
    count, features = len(x), x
    for segment in segments:
        features, logits = segment(features)
        kept = yield first(logits, count)
        if kept is not None:
            chosen = positions(kept, count)
            count = len(chosen)
            if not segment.last:
                features = select(features, padded(chosen, len(logits)))


@jax.jit
def select(features: Any, positions: Array) -> Any:
    """Samples of maps, of one scale or several."""
    return jax.tree.map(lambda x: x[positions], features)


def padded(positions: np.ndarray, size: int) -> np.ndarray:
    """The positions, with zeros up to a power of two, at most up to the `size` there was."""
    wanted = min(1 << max(len(positions) - 1, 0).bit_length(), size)
    return np.pad(positions, (0, wanted - len(positions)))


def first(logits: Array, count: int) -> Array:
    """The first `count` samples: without the padding."""
    # In NumPy, for JAX would compile a slice for every count.
    return logits if len(logits) == count else jnp.asarray(np.asarray(logits)[:count])
