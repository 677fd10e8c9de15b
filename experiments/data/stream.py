"""Batches of a streamed set: image files read, cropped and coloured by worker processes.

Grain keeps the workers: it hands NumPy arrays to any framework, its order does not depend on the
number of workers, and it runs on Linux, macOS and Windows. What each image becomes is a function of
seed, epoch and its place in the epoch alone, so a run can go on from any epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data import pictures
from loss_balance.experiments.data.augment import generator
from loss_balance.experiments.data.dataset import SIDE, Dataset, Images, Labels
from loss_balance.experiments.errors import UserError

try:
    import grain
    from absl import flags  # one of Grain's own needs
    from PIL import Image, ImageEnhance, ImageStat
except ModuleNotFoundError as _error:
    raise UserError(
        f"image folders need {_error.name}: pip install 'loss-balance[experiments]'"
    ) from _error

SCALE = 256  # the shorter side of a test image, of which the centre is cropped (paper, footnote 2)
WORTH_WORKERS = 2000  # images: to start two processes takes as long as to read about so many
Batch = tuple[NDArray[np.uint8], Labels]  # (B, SIDE, SIDE, 3) and (B,)


def training(
    data: Dataset,
    order: NDArray[np.int64],
    seed: int,
    epoch: int,
    workers: int,
    part: slice = slice(None),
) -> Iterator[Batch]:
    """The augmented batches of one epoch, in 8 bits: `augment.standardised` follows on the device.

    Args:
        data: a streamed set.
        order: (batches, B), as `epoch_order` gives it.
        seed: of the run.
        epoch: counted from 0.
        workers: processes that read ahead; 0 reads in this one.
        part: which rows of each batch; each becomes what it is in the whole one.

    Raises:
        UserError: a file is not an image, or is gone.
    """
    return _batches(_training(data, lambda _: order, seed, range(epoch, epoch + 1), part), workers)


def epochs(
    data: Dataset,
    order_of: Callable[[int], NDArray[np.int64]],
    seed: int,
    numbers: range,
    workers: int,
    part: slice = slice(None),
) -> Iterator[Iterator[Batch]]:
    """The batches of one epoch after the other, each as `training` gives them.

    The same processes read them all, none where there is too little to read. Each epoch is to be
    taken to its end before the next one.

    Args:
        data: a streamed set.
        order_of: the order of an epoch; all have one shape.
        seed: of the run.
        numbers: of the epochs.
        workers: processes that read ahead.
        part: which rows of each batch.
    """
    if not numbers:
        return
    source = _training(data, order_of, seed, numbers, part)
    batches = _batches(source, source.worth(workers))
    for _ in numbers:
        yield islice(batches, len(source) // len(numbers))


def evaluation(
    data: Dataset,
    x: Images,
    y: Labels,
    batch_size: int,
    workers: int,
    part: slice = slice(None),
) -> Iterator[Batch]:
    """All images of a split in order, scaled to 256 and cropped in the centre; as `training`."""
    return _batches(_evaluation(data, x, y, batch_size, part), workers)


def evaluations(
    data: Dataset,
    x: Images,
    y: Labels,
    batch_size: int,
    times: int,
    workers: int,
    part: slice = slice(None),
) -> Iterator[Iterator[Batch]]:
    """So many times what `evaluation` gives, read by the same processes, as `epochs`."""
    source = _evaluation(data, x, y, batch_size, part, times)
    batches = _batches(source, source.worth(workers))
    for _ in range(times):
        yield islice(batches, len(source) // times)


def _training(
    data: Dataset,
    order_of: Callable[[int], NDArray[np.int64]],
    seed: int,
    numbers: range,
    part: slice,
) -> _Training:
    orders = _Orders(order_of, numbers, part)
    return _Training(_root(data), data.x_train, data.y_train, orders, seed)


def _evaluation(
    data: Dataset, x: Images, y: Labels, batch_size: int, part: slice, times: int = 1
) -> _Evaluation:
    starts = range(0, len(y), batch_size)
    order = [np.arange(start, min(start + batch_size, len(y)))[part] for start in starts]
    return _Evaluation(_root(data), x, y, order * times)


def crop_training(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random part, resized; half of the time flipped; its colours changed.

    The part has 8 to 100 % of the area and sides 3:4 to 4:3; if ten draws do not fit into the
    image, it is the whole one. The paper names no augmentation for ILSVRC. This is that of the
    authors' code, except for its lighting noise, which has no effect there, and that it
    takes the channels for red, green and blue in the wrong order.
    """
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, _part(image, rng))
    for change in rng.permutation(3):
        image = (_brighter, _contrasted, _saturated)[change](image, rng)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def crop_evaluation(image: Image.Image) -> Image.Image:
    """The centre of the image, scaled so that its shorter side is 256."""
    ratio = SCALE / min(image.size)
    width, height = (max(SCALE, round(side * ratio)) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + SIDE, top + SIDE))


def _part(image: Image.Image, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what is kept."""
    for _ in range(10):
        area = image.width * image.height * rng.uniform(0.08, 1.0)
        aspect = rng.uniform(3 / 4, 4 / 3)
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rng.random() < 0.5:
            width, height = height, width
        if 0 < width <= image.width and 0 < height <= image.height:
            left = int(rng.integers(image.width - width + 1))
            top = int(rng.integers(image.height - height + 1))
            return left, top, left + width, top + height
    return 0, 0, image.width, image.height


def _brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _mapped(image, [1.0] * 3, [rng.uniform(-30, 30)] * 3)


def _contrasted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.8, 1.2)
    return _mapped(image, [factor] * 3, [(1 - factor) * m for m in ImageStat.Stat(image).mean])


def _saturated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + rng.uniform(-0.4, 0.4))


def _mapped(image: Image.Image, factors: list[float], shifts: list[float]) -> Image.Image:
    """Each channel times its factor plus its shift, clipped to 8 bits; one look-up in C."""
    values = np.outer(factors, np.arange(256)) + np.array(shifts)[:, None]
    return image.point(np.clip(np.rint(values), 0, 255).astype(int).ravel().tolist())


@dataclass(frozen=True)
class _Evaluation:
    """Grain's source of batches: its length, and each by its number."""

    root: Path
    names: Images
    labels: Labels
    order: Sequence[NDArray[np.int64]]  # which images are in which batch

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int) -> Batch:
        chosen = self.order[step]
        images = np.empty((len(chosen), SIDE, SIDE, 3), np.uint8)
        for place, name in enumerate(self.names[chosen]):
            images[place] = np.asarray(self._image(name, step, place))
        return images, self.labels[chosen]

    def worth(self, workers: int) -> int:
        """So many workers, or 0 where starting them takes longer than reading all here."""
        return workers if len(self) * len(self.order[0]) >= WORTH_WORKERS else 0

    def _image(self, name: bytes, step: int, place: int) -> Image.Image:
        image = pictures.read(self.root / os.fsdecode(name), "RGB")
        return self._crop(image, step, place)

    def _crop(self, image: Image.Image, step: int, place: int) -> Image.Image:  # noqa: ARG002
        return crop_evaluation(image)


class _Orders(Sequence[NDArray[np.int64]]):
    """Which images are in which batch of many epochs; one epoch's order at a time in memory."""

    def __init__(
        self, order_of: Callable[[int], NDArray[np.int64]], numbers: range, part: slice
    ) -> None:
        self.order_of, self.numbers, self.part = order_of, numbers, part
        self.kept, self.order = numbers[0], order_of(numbers[0])
        self.steps, self.size = len(self.order), len(self.order[0])

    def __len__(self) -> int:
        return self.steps * len(self.numbers)

    def __getitem__(self, step: Any) -> Any:
        number, row = self.place(step)
        if number != self.kept:
            self.kept, self.order = number, self.order_of(number)
        return self.order[row][self.part]

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, batch of it)."""
        return self.numbers[step // self.steps], step % self.steps


@dataclass(frozen=True)
class _Training(_Evaluation):
    """Likewise, each image changed by random numbers of its own."""

    order: _Orders
    seed: int

    def _crop(self, image: Image.Image, step: int, place: int) -> Image.Image:
        epoch, row = self.order.place(step)
        position = row * self.order.size + range(self.order.size)[self.order.part][place]
        return crop_training(image, generator(self.seed, epoch, 5, position))


def _root(data: Dataset) -> Path:
    if data.root is None:
        raise ValueError(f"a streamed set was expected, {data.name} is in memory")
    return data.root


def _batches(source: _Evaluation, workers: int) -> Iterator[Batch]:
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    batches = grain.MapDataset.source(source).to_iter_dataset(ahead)
    if workers:
        if not flags.FLAGS.is_parsed():
            # Grain 0.2.18 reads a flag of its own that only absl's main would parse (grain#1355).
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(workers, 2))
    return iter(batches)
