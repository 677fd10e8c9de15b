"""Stages and heads of a network of the user's own, looked at before it is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from loss_balance.reference_models.description.exits import (
    check_features,
    check_head,
    check_known,
    check_order,
    classes_of,
    named,
)
from loss_balance.reference_models.description.layers import BATCH_NORM_EPSILON
from loss_balance.reference_models.jax.layers import batch_norm, global_average
from loss_balance.reference_models.jax.segments import Segment


class Function(nnx.Module):
    """A function as a module without variables."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, x: Any) -> Any:
        return self.run(x)


def itself(x: Any) -> Any:
    """The head of an exit whose features are its logits."""
    return x


def first_of(features: Any) -> Any:
    """What a head reads of them."""
    return features[0] if isinstance(features, (list, tuple)) else features


class Stages:
    """The modules and their names, in order."""

    def __init__(self, stages: Any) -> None:
        if isinstance(stages, Mapping):
            names, parts = tuple(map(str, stages)), list(stages.values())
        elif isinstance(stages, (Sequence, nnx.List)):
            parts = list(stages)
            names = tuple(f"stage{i}" for i in range(len(parts)))
        else:
            raise ValueError(
                f"stages must be a mapping or a sequence of modules or functions, got {stages!r}"
            )
        self.names: tuple[str, ...] = names
        for part in parts:
            if not callable(part):
                raise ValueError(f"stages must be modules or functions, got {part!r}")
        self.modules: list[nnx.Module] = [_module(part) for part in parts]

    def shapes(self, image: tuple[int, ...]) -> list[Any]:
        """What each stage gives for one image: `jax.ShapeDtypeStruct`s."""
        features: Any = jax.eval_shape(lambda: jnp.zeros((1, *image), jnp.float32))
        found = []
        for module in self.modules:
            features = _given(module, features)
            found.append(features)
        return found


class Heads:
    """The heads of the exits, with what they read.

    Raises:
        ValueError: what is said of `with_exits`.
    """

    def __init__(self, chain: Stages, heads: Any, image: tuple[int, ...], rngs: nnx.Rngs) -> None:
        given = _by_index(chain.names, named(heads))
        last = len(chain.names) - 1
        features = chain.shapes(image)
        modules: list[Any] = []
        if last in given:
            modules.append(_last(chain.names[last], given.pop(last), features[last]))
            logits = _given(modules[0], first_of(features[last]))
        else:
            logits = features[last]
        self.num_classes: int = classes_of(logits)
        named({chain.names[i]: head for i, head in given.items()})  # one at least is left
        self.names: tuple[str, ...] = tuple(chain.names[i] for i in given)
        self.ends: tuple[int, ...] = (*(i + 1 for i in given), last + 1)
        early = [self._early(chain.names[i], features[i], given[i], rngs) for i in given]
        self.modules: list[nnx.Module] = [*early, *modules]

    def _early(self, name: str, features: Any, head: Any, rngs: nnx.Rngs) -> nnx.Module:
        read = first_of(features)
        shape = tuple(read.shape[1:])
        if head is None:
            check_features(name, read)
            made: nnx.Module = DefaultHead(shape, self.num_classes, rngs=rngs)
        else:
            made = _made(name, head, shape)
        logits = _given(made, read)
        check_head(name, logits, self.num_classes)
        return made


class DefaultHead(nnx.Module):
    """Batch norm, ReLU, global average, linear for maps; layer norm, mean, linear for tokens.

    Args:
        shape: of the features without the batch, (H, W, C) or (tokens, C).
        classes: logits.
        rngs: for the linear layer.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs) -> None:
        self.maps: bool = len(shape) == 3
        if self.maps:
            self.norm: Any = batch_norm(shape[-1], dtype=None, rngs=rngs)
        else:
            self.norm = nnx.LayerNorm(shape[-1], epsilon=BATCH_NORM_EPSILON, rngs=rngs)
        self.linear: nnx.Linear = nnx.Linear(shape[-1], classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, C) or (B, tokens, C) to logits (B, classes), in float32 or wider."""
        y = self.norm(x)
        if self.maps:
            return self.linear(global_average(nnx.relu(y)))
        return self.linear(y.mean(1, dtype=jnp.promote_types(y.dtype, jnp.float32)))


def _module(part: Any) -> nnx.Module:
    return part if isinstance(part, nnx.Module) else Function(part)


def _given(module: nnx.Module, features: Any) -> Any:
    """What the module gives in evaluation mode, as shapes."""
    found, _ = jax.eval_shape(Segment([module], Function(itself), False, first_of), features)
    return found


def _made(name: str, head: Any, shape: tuple[int, ...]) -> nnx.Module:
    if not isinstance(head, nnx.Module):
        head = head(shape) if callable(head) else head
        if not callable(head):
            raise ValueError(
                "heads must be modules, functions of a shape that return one, or None, got "
                f"{head!r} for {name!r}"
            )
    return _module(head)


def _last(name: str, head: Any, features: Any) -> nnx.Module:
    if head is None:
        raise ValueError(
            f"the head of the last stage must be given, for the others have as many classes, got "
            f"None for {name!r}"
        )
    return _made(name, head, tuple(first_of(features).shape[1:]))


def _by_index(names: tuple[str, ...], heads: dict[Any, Any]) -> dict[int, Any]:
    """The heads by the index of their stage."""
    known: dict[Any, int] = {name: i for i, name in enumerate(names)}
    known |= {i: i for i in range(len(names))}
    check_known([str(key) if isinstance(key, bool) else key for key in heads], known, "stages")
    check_order(list(heads), known)
    return {known[key]: head for key, head in heads.items()}
