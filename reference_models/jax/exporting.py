"""Files for deployment from a JAX network: programs of `jax.export`, with the weights in them.

Takes anything with `segments()`: `AnytimeNet`, and what else gives a function for what is computed
up to each exit from the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array as JaxArray
from jax import export

from loss_balance.extras import require
from loss_balance.reference_models.exports import about as layout
from loss_balance.reference_models.exports import writing
from loss_balance.reference_models.exports.about import About
from loss_balance.reference_models.exports.writing import Array, Written

ENDING = ".jax"
PLATFORMS = ("cpu", "cuda")
Segments = Sequence[Callable[..., tuple[JaxArray, ...]]]


def to_jax(
    net: Any,
    folder: str | os.PathLike[str],
    about: About | None = None,
    *,
    statistics: Path | None = None,
    overwrite: bool = False,
    tolerance: float = writing.TOLERANCE,
    platforms: Sequence[str] = PLATFORMS,
) -> Written:
    """Writes programs of `jax.export`, for any batch.

    ::

        program = jax.export.deserialize(bytearray(Path(folder, "exit0.jax").read_bytes()))
        (logits,) = program.call(images)

    `segment0.jax`, ... and `exit0.jax`, ... take images (B, H, W, C) in float32. Each was read
    back, run and compared with the network before this returns.

    Args:
        net: in float32.
        folder: new or empty, or with `overwrite` one that an export left.
        about: what is known of the network; by default what its spec knows.
        statistics: of its images, as in a run's folder; copied along.
        overwrite: whether an earlier export may go.
        tolerance: the largest difference to the network, as a share of the largest logit.
        platforms: what the programs run on; JAX's names. They are checked where this runs.

    Raises:
        ImportError: flatbuffers, with which JAX writes, is not installed.
        ValueError: the folder may not be written.
        RuntimeError: a file does not give the network's logits. No folder is left then.
    """
    require("jax-export", "writing programs of jax.export")
    about = layout.of_network(net) if about is None else about
    segments: Segments = net.segments()
    traced, checked = (
        writing.random_images(count, about.input_shape)
        for count in (writing.TRACED, writing.CHECKED)
    )
    expected = [np.asarray(logits) for logits in net.anytime(jnp.asarray(checked))]
    with writing.new_folder(folder, statistics, overwrite=overwrite) as new:
        handed, shapes = [], []
        maps: Sequence[JaxArray] = [jnp.asarray(traced)]
        for segment in segments:
            shapes.append([x.shape[1:] for x in maps])
            *maps, _ = segment(*maps)
            handed.append(len(maps))
        records = layout.segments_of(handed, ENDING)
        files = tuple(f"exit{k}{ENDING}" for k in range(len(segments)))
        runs = [
            _save(new / record.file, segment, taken, platforms)
            for record, segment, taken in zip(records, segments, shapes, strict=True)
        ]
        exits = [
            _save(new / file, partial(_exit, segments[: k + 1]), shapes[0], platforms)
            for k, file in enumerate(files)
        ]
        layout.Folder("jax", about, files, records).write(new)
        alone = [partial(_first, run) for run in exits]
        difference = writing.largest_difference(checked, expected, runs, alone, tolerance)
    found = Path(folder).resolve()
    return Written(found, writing.sizes(found), difference)


def _save(
    path: Path,
    run: Callable[..., tuple[JaxArray, ...]],
    shapes: Sequence[tuple[int, ...]],
    platforms: Sequence[str],
) -> Callable[[Sequence[Array]], list[Array]]:
    """Writes the program and gives it as read back."""
    (batch,) = export.symbolic_shape("batch")
    struct: Any = jax.ShapeDtypeStruct  # without types, as `call` below
    like = [struct((batch, *shape), jnp.float32) for shape in shapes]
    path.write_bytes(export.export(jax.jit(run), platforms=tuple(platforms))(*like).serialize())
    program: Any = export.deserialize(bytearray(path.read_bytes()))
    return lambda maps: [np.asarray(x) for x in program.call(*maps)]


def _exit(segments: Segments, images: JaxArray) -> tuple[JaxArray]:
    """One exit's logits; XLA drops the heads before it."""
    maps: Sequence[JaxArray] = (images,)
    for segment in segments:
        *maps, logits = segment(*maps)
    return (logits,)


def _first(run: Callable[[Sequence[Array]], list[Array]], images: Array) -> Array:
    return run([images])[0]
