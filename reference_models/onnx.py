"""An anytime network from a folder of ONNX files; NumPy and onnxruntime are all it needs.

::

    net = AnytimeNet("runs/train/export-onnx")
    prediction = predict(net.anytime(images), deadline=0.005)

Images are (B, H, W, C), logits (B, num_classes) per exit, all float32.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loss_balance.extras import require

require("onnx", __name__)

import onnxruntime  # noqa: E402 (its extra is asked for first)

from loss_balance.checks import check_count  # noqa: E402
from loss_balance.reference_models.description.inputs import (  # noqa: E402
    check_images,
    positions,
)
from loss_balance.reference_models.description.layers import Shape  # noqa: E402
from loss_balance.reference_models.description.spec import ExitCost  # noqa: E402
from loss_balance.reference_models.description.weights import load as read_npz  # noqa: E402
from loss_balance.reference_models.exports import about as layout  # noqa: E402

__all__ = ["AnytimeNet"]

Logits = NDArray[np.float32]
FATAL = 4  # of onnxruntime's levels of what it logs


class AnytimeNet:
    """A network that an export wrote, one exit at a time.

    It may be used from several threads at once, and pickled: the copy reads the folder anew.

    Args:
        folder: of `loss-balance export --to onnx` or `exporting.to_onnx`.
        threads: within an operator. One waits for no other core; a large image may gain by more.
        providers: what onnxruntime computes on, in order of preference.

    Attributes:
        about: what the folder says of the network: its name, exits, class names.

    Raises:
        ValueError: the folder is no export to ONNX, or not as it was written; threads are no whole
            number, or a provider is not in this onnxruntime.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        check_count("threads", threads)
        _check_providers(providers)
        self.folder: Path = Path(folder)
        self.threads: int = threads
        self.providers: tuple[str, ...] = tuple(providers)
        written = layout.read(self.folder)
        if written.format != "onnx":
            raise ValueError(f"{folder} must be an export to onnx, got one to {written.format}")
        self.about: layout.About = written.about
        self._segments = [self._opened(segment) for segment in written.segments]
        self._check_chain(written.segments)

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of an image."""
        return self.about.input_shape

    @property
    def num_classes(self) -> int:
        """Logits per exit."""
        return self.about.num_classes

    @property
    def errors(self) -> tuple[float, ...] | None:
        """Validation error of each exit, for `predict`; None where one is not known."""
        known = [known.validation_error for known in self.about.exits]
        errors = tuple(error for error in known if error is not None)
        return errors if len(errors) == len(known) else None

    def costs(self) -> tuple[ExitCost, ...]:
        """Cumulative cost of each exit.

        Raises:
            ValueError: the export does not say.
        """
        costs = []
        for known in self.about.exits:
            if known.multiply_adds is None or known.parameters is None:
                raise ValueError(
                    f"{self.folder} must say what its exits cost, got nothing for {known.name}"
                )
            costs.append(ExitCost(known.multiply_adds, known.parameters))
        return tuple(costs)

    def standardise(self, images: ArrayLike) -> NDArray[np.float32]:
        """(x - mean) / std of images (B, H, W, C), in the training images' own values.

        Raises:
            ValueError: the export does not have them.
        """
        path = self.folder / layout.STATISTICS
        if not path.is_file():
            raise ValueError(f"{path} must be there to standardise images, it is not")
        try:
            arrays = read_npz(path)
            mean, std = arrays["mean"], arrays["std"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} must be as an export left it, got: {error}") from error
        return np.asarray((np.asarray(images, np.float32) - mean) / std, np.float32)

    def __call__(self, x: ArrayLike) -> list[Logits]:
        """Logits (B, num_classes) of every exit, for standardised images (B, H, W, C).

        Raises:
            ValueError: images of another shape.
        """
        return list(self.anytime(x))

    def anytime(self, x: ArrayLike) -> Generator[Logits, Any, None]:
        """The answers of a call, one exit at a time; nothing beyond those consumed is computed.

        `answers.send(kept)` goes on with those samples alone, positions in the current batch, and
        returns the next logits.

        Raises:
            ValueError: images of another shape; sent, what are no positions in the current batch.
        """
        images = np.asarray(x, np.float32)
        check_images(images.shape, self.input_shape)
        return self._answers(images)

    def _answers(self, images: NDArray[np.float32]) -> Generator[Logits, Any, None]:
        maps = [images]
        for session, inputs, outputs in self._segments:
            if len(maps[0]):
                *maps, logits = session.run(outputs, dict(zip(inputs, maps, strict=True)))
            else:  # no operator need know what to do with none
                maps = [maps[0]] * max(len(outputs) - 1, 1)
                logits = np.zeros((0, self.num_classes), np.float32)
            kept = yield logits
            if kept is not None:
                chosen = positions(kept, len(logits))
                maps = [x[chosen] for x in maps]

    def _opened(self, segment: layout.Segment) -> tuple[Any, list[str], list[str]]:
        path = self.folder / segment.file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL  # what is wrong comes as an exception
        try:
            session = onnxruntime.InferenceSession(path, options, providers=list(self.providers))
        except Exception as error:  # onnxruntime's have no class of their own above Exception
            raise ValueError(
                f"{path} must be as an export left it, got: {str(error)[:200]}"
            ) from error
        return session, list(segment.inputs), list(segment.outputs)

    def _check_chain(self, segments: Sequence[layout.Segment]) -> None:
        """ValueError unless each file takes what the one before it gives, as `exits.json` says."""
        given: dict[str, Any] = {"images": [*self.input_shape]}
        for segment, (session, inputs, outputs) in zip(segments, self._segments, strict=True):
            taken, made = _shapes(session.get_inputs()), _shapes(session.get_outputs())
            fits = list(made) == outputs and taken == {name: given.get(name) for name in inputs}
            if not fits or made["logits"] != [self.num_classes]:
                raise ValueError(
                    f"{self.folder / segment.file} must be as an export left it, got a network "
                    f"from {taken} to {made}"
                )
            given = made

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.folder.resolve(), self.threads, self.providers)


def _again(folder: Path, threads: int, providers: tuple[str, ...]) -> AnytimeNet:
    return AnytimeNet(folder, threads=threads, providers=providers)


def _check_providers(providers: Sequence[str]) -> None:
    known = onnxruntime.get_available_providers()
    if isinstance(providers, str) or not providers or not set(providers) <= set(known):
        raise ValueError(f"providers must be some of {', '.join(known)}, got {providers!r}")


def _shapes(values: Sequence[Any]) -> dict[str, list[Any] | None]:
    """Of one sample, by name; what is no float32 for any number of samples has None."""
    return {v.name: v.shape[1:] if _for_any_batch(v) else None for v in values}


def _for_any_batch(value: Any) -> bool:
    return value.type == "tensor(float)" and bool(value.shape) and isinstance(value.shape[0], str)
