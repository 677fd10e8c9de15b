"""Files for deployment from a Keras network on TensorFlow: a SavedModel.

Takes anything with `segments()`: `AnytimeNet`, and what else gives a function for what is computed
up to each exit from the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loss_balance.reference_models.exports import about as layout
from loss_balance.reference_models.exports import writing
from loss_balance.reference_models.exports.about import About
from loss_balance.reference_models.exports.writing import Array, Written
from loss_balance.reference_models.keras.segments import on_tensorflow

Segments = Sequence[Callable[..., tuple[Any, ...]]]


def to_savedmodel(
    net: Any,
    folder: str | os.PathLike[str],
    about: About | None = None,
    *,
    statistics: Path | None = None,
    overwrite: bool = False,
    tolerance: float = writing.TOLERANCE,
) -> Written:
    """Writes a SavedModel with a signature for each segment and each exit, for any batch.

    ::

        model = tf.saved_model.load(folder)
        model.signatures["exit0"](images=images)["logits"]

    `segment0`, ... and `exit0`, ... take images (B, H, W, C) in float32; the weights are there
    once. Each was read back, run and compared with the network before this returns.

    Args:
        net: in float32, of Keras on TensorFlow.
        folder: new or empty, or with `overwrite` one that an export left.
        about: what is known of the network; by default what its spec knows.
        statistics: of its images, as in a run's folder; copied along.
        overwrite: whether an earlier export may go.
        tolerance: the largest difference to the network, as a share of the largest logit.

    Raises:
        ValueError: the folder may not be written, or Keras runs on another backend, or the network
            computes in another type.
        RuntimeError: a signature does not give the network's logits. No folder is left then.
    """
    about = layout.of_network(net) if about is None else about
    _check_plain(net)
    import tensorflow as tf

    segments: Segments = net.segments()
    traced, checked = (
        writing.random_images(count, about.input_shape)
        for count in (writing.TRACED, writing.CHECKED)
    )
    expected = [np.asarray(logits) for logits in net(checked, training=False)]
    with writing.new_folder(folder, statistics, overwrite=overwrite) as new:
        shapes, handed = [], []
        maps: Sequence[Any] = [tf.constant(traced)]
        for segment in segments:
            shapes.append([x.shape[1:] for x in maps])
            *maps, _ = segment(*maps)
            handed.append(len(maps))
        records = layout.segments_of(handed, "")
        exits = tuple(f"exit{k}" for k in range(len(segments)))
        signatures = {
            record.file: _signature(segment, record.inputs, record.outputs, taken)
            for record, segment, taken in zip(records, segments, shapes, strict=True)
        }
        for k, name in enumerate(exits):
            run = partial(_exit, segments[: k + 1])
            signatures[name] = _signature(run, ("images",), ("logits",), shapes[0])
        module = tf.Module()
        module.kept = [variable.value for variable in net.variables]  # else they were not saved
        tf.saved_model.save(module, str(new), signatures=signatures)
        layout.Folder("savedmodel", about, exits, records).write(new)
        loaded = tf.saved_model.load(str(new)).signatures
        difference = writing.largest_difference(
            checked,
            expected,
            [partial(_run, loaded[r.file], r.inputs, r.outputs) for r in records],
            [partial(_alone, loaded[name]) for name in exits],
            tolerance,
        )
    found = Path(folder).resolve()
    return Written(found, writing.sizes(found), difference)


def _signature(
    run: Callable[..., Sequence[Any]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Sequence[Any],
) -> Any:
    import tensorflow as tf

    specs = [
        tf.TensorSpec((None, *shape), tf.float32, name=name)
        for name, shape in zip(inputs, shapes, strict=True)
    ]

    def named(*maps: Any) -> dict[str, Any]:
        return dict(zip(outputs, run(*maps), strict=True))

    return tf.function(named, input_signature=specs, autograph=False)


def _exit(segments: Segments, images: Any) -> tuple[Any]:
    """One exit's logits; the graph keeps nothing of the heads before it."""
    maps: Sequence[Any] = (images,)
    for segment in segments:
        *maps, logits = segment(*maps)
    return (logits,)


def _run(
    signature: Any, inputs: Sequence[str], outputs: Sequence[str], maps: Sequence[Array]
) -> list[Array]:
    import tensorflow as tf

    found = signature(**{name: tf.constant(x) for name, x in zip(inputs, maps, strict=True)})
    return [found[name].numpy() for name in outputs]


def _alone(signature: Any, images: Array) -> Array:
    return _run(signature, ("images",), ("logits",), [images])[0]


def _check_plain(net: Any) -> None:
    if not on_tensorflow():
        raise ValueError("a SavedModel is of Keras on TensorFlow, and here it runs on another")
    if net.compute_dtype != "float32":
        raise ValueError(f"a network to export must compute in float32, got {net.compute_dtype}")
