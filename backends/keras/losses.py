"""The losses of `compile`, one by one: read as Keras reads them, added up by us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras
from keras import ops

from loss_balance.backends.keras.ops import cast
from loss_balance.backends.keras_bases import CompileLoss

Path = tuple[str | int, ...]  # the keys and indices that lead to an output


class Found(NamedTuple):
    """The losses of one step in the order of the model's outputs."""

    names: tuple[str, ...]  # distinct
    keyed: bool  # whether the outputs have keys of the user's, rather than names of layers
    losses: list[Any]  # scalars; each replica's share of the whole, as Keras has them
    present: Any  # shape (losses,), bool; None: all are
    batch: Any  # how many samples


class Handed(NamedTuple):
    """A loss as it was computed, and with which sample weights."""

    loss: Any
    sample_weight: Any


_handed: ContextVar[list[Handed] | None] = ContextVar("handed", default=None)  # one per replica


class Losses(CompileLoss):
    """Keras' reader of `compile(loss=...)`, but each loss is handed over, and their sum is 0.

    What goes with which output, what is logged and what is refused stays Keras' own matter.
    """

    _flat_losses: list[Any]  # Keras' own

    def build(self, y_true: Any, y_pred: Any) -> None:
        """Builds as Keras does; losses of one name, which would share a column of logs, differ."""
        super().build(y_true, y_pred)
        flat = self._flat_losses
        self._paths: list[Path] = [one.path for one in flat]
        self._names = distinct(
            one.name if self.output_names else label(one.path, None) for one in flat
        )
        for metric, name in zip(self.metrics, distinct(one.name for one in flat), strict=False):
            metric.name = f"{name}_loss"  # a single loss has no metric of its own
        self._order: list[int] | None = None  # that of the model's outputs
        self._flat_losses = [one._replace(loss=_handing_over(one.loss)) for one in flat]

    def call(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        super().call(y_true, y_pred, sample_weight)
        return ops.zeros((), self.dtype)

    def _order_in(self, outputs: Any) -> list[int]:
        places = [_place(path, outputs) for path in self._paths]
        return sorted(range(len(places)), key=places.__getitem__)

    @contextmanager
    def handing_over(self) -> Iterator[list[Handed]]:
        """While it lasts, the losses that are computed come into the list."""
        handed: list[Handed] = []
        token = _handed.set(handed)
        try:
            yield handed
        finally:
            _handed.reset(token)

    def in_order(self, handed: Sequence[Handed], y_pred: Any, declared: Any) -> Found:
        """What was handed over, in the order of the outputs.

        Args:
            handed: the losses as Keras computed them.
            y_pred: the outputs of this step.
            declared: those a functional model was made with, or None. Their order counts: Keras
                returns the keys of a dict sorted on some backends.
        """
        order = self._order
        if order is None:
            functional = _paths(declared) == _paths(y_pred)
            order = self._order_in(declared if functional else y_pred)
            if functional:  # for good; to look again takes a small step's time
                self._order = order
        return Found(
            names=tuple(self._names[i] for i in order),
            keyed=any(isinstance(key, str) for path in self._paths for key in path),
            losses=[cast(handed[i].loss, self.dtype) for i in order],
            present=_present([handed[i].sample_weight for i in order]),
            batch=ops.shape(keras.tree.flatten(y_pred)[0])[0],
        )


def _handing_over(loss: Callable[..., Any]) -> Callable[..., Any]:
    def handed_over(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        value = loss(y_true, y_pred, sample_weight)
        handed = _handed.get()
        assert handed is not None
        handed.append(Handed(value, sample_weight))
        return value

    return handed_over


def _present(sample_weights: Sequence[Any]) -> Any:
    """Which losses are there: a loss all of whose samples weigh nothing is absent, not 0."""
    if all(weight is None for weight in sample_weights):
        return None
    return ops.stack([_any_counts(weight) for weight in sample_weights])


def _any_counts(weight: Any) -> Any:
    flat = keras.tree.flatten(weight)  # one loss may take a structure of outputs
    if any(one is None for one in flat):
        return ops.convert_to_tensor(True)
    return ops.any(ops.stack([ops.any(ops.not_equal(one, 0)) for one in flat]))


def output_labels(model: Any) -> tuple[str, ...]:
    """What losses on all outputs of a functional model are called; () for other models."""
    outputs, layers = getattr(model, "output", None), getattr(model, "output_names", None)
    if outputs is None or layers is None:
        return ()
    found = sorted(
        (_place(path, outputs), label(path, layer))
        for path, layer in zip(_paths(outputs), layers, strict=True)
    )
    return distinct(name for _, name in found)


def label(path: Path, layer: str | None) -> str:
    """The keys that lead to an output; what has no key of its own is called after its layer."""
    if layer is not None and not (path and isinstance(path[-1], str)):
        path = (*path[:-1], layer)
    return "/".join(map(str, path)) or "0"


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order, a repeated one with a number behind it as Keras has for metrics."""
    found: list[str] = []
    for name in names:
        new, count = name, 0
        while new in found:
            count += 1
            new = f"{name}_{count}"
        found.append(new)
    return tuple(found)


def _paths(outputs: Any) -> list[Path]:
    return [path for path, _ in keras.tree.flatten_with_path(outputs)]


def _place(path: Path, outputs: Any) -> tuple[int, ...]:
    """The place that `path` leads to, with keys counted as they were given: Keras sorts them."""
    place: list[int] = []
    for key in path:
        at = list(outputs).index(key) if isinstance(outputs, Mapping) else key
        assert isinstance(at, int)
        place.append(at)
        outputs = outputs[key]
    return tuple(place)
