"""What a learner is fed: batches for training and evaluation, the same in every framework.

Images in memory live on the device: a training batch then says which to take and what happens to
them (`augment.augmented`). Streamed images come with their batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.augment import Augmentation, Draws, draws
from loss_balance.experiments.data.dataset import Dataset, Images, Labels
from loss_balance.experiments.training.recipes import Recipe, epoch_order

ALL = slice(None)
PIXELS = 2**24  # of an evaluation batch, at most; 500 images of CIFAR's size are 2**19


class Batch(NamedTuple):
    """What one training step sees."""

    chosen: NDArray[np.int32]  # (B,), which of the images to take
    draws: Draws  # a row for each
    images: Images | None = None  # what `chosen` refers to; None is the training split
    labels: Labels | None = None  # likewise


def resident(data: Dataset) -> bool:
    """Whether the learner keeps the training split on its device."""
    return not data.streamed


def training(
    data: Dataset,
    recipe: Recipe,
    seed: int,
    epoch: int,
    workers: int = 0,
    part: slice = ALL,
) -> Iterator[Batch]:
    """The batches of an epoch; a function of the arguments alone, whatever was trained before.

    Args:
        data: whose training split.
        recipe: its batch size counts.
        seed: of the run.
        epoch: counted from 0.
        workers: processes that read streamed images.
        part: which rows of each batch.
    """
    return next(epochs(data, recipe, seed, range(epoch, epoch + 1), workers, part))


def epochs(
    data: Dataset,
    recipe: Recipe,
    seed: int,
    numbers: range,
    workers: int = 0,
    part: slice = ALL,
) -> Iterator[Iterator[Batch]]:
    """What `training` gives of these epochs, one after the other, each to be taken to its end.

    Worker processes that read streamed images live as long as there are epochs.
    """
    if not data.streamed:
        for number in numbers:
            yield _in_memory(data, recipe, seed, number, part)
        return
    from loss_balance.experiments.data import stream  # its loader is not for everyone

    def order_of(number: int) -> NDArray[np.int64]:
        return epoch_order(seed, number, len(data.y_train), recipe)

    # Augmented as they are read, so nothing is drawn: the same zeros for every batch.
    mine = len(range(recipe.size_of_batch(len(data.y_train)))[part])
    still, index = draws(Augmentation(), seed, 0, mine), np.arange(mine, dtype=np.int32)
    for batches in stream.epochs(data, order_of, seed, numbers, workers, part):
        yield (Batch(index, still, images, labels) for images, labels in batches)


def _in_memory(
    data: Dataset, recipe: Recipe, seed: int, epoch: int, part: slice
) -> Iterator[Batch]:
    order = epoch_order(seed, epoch, len(data.y_train), recipe)
    size = order.shape[1]
    drawn = draws(data.augmentation, seed, epoch, order.size)
    for step, index in enumerate(order.astype(np.int32)):
        rows = slice(step * size, (step + 1) * size)
        yield Batch(index[part], Draws(*(values[rows][part] for values in drawn)))


def evaluation(
    data: Dataset, x: Images, y: Labels, workers: int = 0, part: slice = ALL
) -> Iterator[tuple[Images, Labels]]:
    """All images of a split in order, as published, with their labels; of each batch a part."""
    return next(evaluations(data, x, y, 1, workers, part))


def evaluations(
    data: Dataset, x: Images, y: Labels, times: int, workers: int = 0, part: slice = ALL
) -> Iterator[Iterator[tuple[Images, Labels]]]:
    """So many times what `evaluation` gives, read by the same processes."""
    size = max(1, min(500, PIXELS // (data.input_shape[0] * data.input_shape[1])))
    if data.streamed:
        from loss_balance.experiments.data import stream  # its loader is not for everyone

        yield from stream.evaluations(data, x, y, size, times, workers, part)
        return
    for _ in range(times):
        yield (
            (x[start : start + size][part], y[start : start + size][part])
            for start in range(0, len(y), size)
        )
