"""A run exported to ONNX, read back from its folder: what `predict` asks of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from loss_balance.experiments.data import preparation
from loss_balance.experiments.data.preparation import Preparation
from loss_balance.experiments.data.sources import Dataset
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.trained import times_of
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.exports.about import FILE, STATISTICS

if TYPE_CHECKING:
    from loss_balance.reference_models.onnx import AnytimeNet


@dataclass(frozen=True)
class Exported:
    """One folder; its network takes standardised images (B, H, W, C) of NumPy."""

    folder: Path
    network: AnytimeNet

    framework = "onnxruntime"

    @property
    def name(self) -> str:
        """What the network is called."""
        return self.network.about.name

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of an image."""
        return self.network.input_shape

    @property
    def num_exits(self) -> int:
        """How often the network answers."""
        return len(self.network.about.exits)

    @property
    def validation_error(self) -> tuple[float, ...] | None:
        """Error of each exit on training images that were held out; None if none were."""
        return self.network.errors

    @cached_property
    def preparation(self) -> Preparation:
        """What makes an image the network's input."""
        return preparation.read(self.folder / STATISTICS, self.input_shape)

    def test_data(self) -> Dataset:
        """Raises UserError: an export does not know what data its run was trained on."""
        raise UserError(f"IMAGE must be a file for an export, {self.folder} knows no test images")

    def times(self, repeats: int) -> tuple[float, ...]:
        """Median seconds from the start to each exit, for one image, after a warm-up."""
        return times_of(self.network, self.input_shape, repeats)


def is_one(folder: Path) -> bool:
    """Whether an export is in the folder, to whatever format."""
    return (folder / FILE).is_file()


def read(folder: Path) -> Exported:
    """The export to ONNX in `folder`.

    Raises:
        UserError: it is to another format or not as it was written, or onnxruntime is absent.
    """
    try:
        from loss_balance.reference_models.onnx import AnytimeNet

        return Exported(folder, AnytimeNet(folder))
    except (ImportError, ValueError) as error:
        raise UserError(str(error)) from error
