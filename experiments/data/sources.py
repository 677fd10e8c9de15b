"""The data sets by name, as NumPy arrays, so that every framework reads the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loss_balance.experiments.data import cifar, digits, imagefolder, npz, svhn
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.dataset import (
    Dataset,
    Images,
    Labels,
    Splits,
    hold_out,
    per_channel,
    per_pixel,
)
from loss_balance.experiments.errors import UserError

__all__ = ["NAMES", "Dataset", "Images", "Labels", "Source", "load"]

BUNDLED: dict[str, Callable[[], Splits]] = {
    "digit-pairs": digits.digit_pairs,
    "digits": digits.digits,
}
DOWNLOADABLE: dict[str, Callable[[Path, bool], Splits]] = {  # the flag: whether to download
    "cifar10": lambda path, download: cifar.read(cifar.CIFAR10, path, download=download),
    "cifar100": lambda path, download: cifar.read(cifar.CIFAR100, path, download=download),
    "svhn": lambda path, download: svhn.read(path, download=download),
}
OWN: dict[str, Callable[[Path], Splits]] = {"imagefolder": imagefolder.read, "npz": npz.read}
STREAMED = ("imagefolder",)
NAMES = (*BUNDLED, *DOWNLOADABLE, *OWN)
AUGMENTED = {"cifar10": "crop-flip", "cifar100": "crop-flip", "svhn": "crop-blur"}  # by default


@dataclass(frozen=True)
class Source:
    """A data set as the user named it; arguments as of `load`, which says what is wrong."""

    name: str
    path: Path | None = None
    validation: bool = False
    augment: str | None = None
    skip: tuple[str, ...] = ()  # files of a streamed set that are left out

    def load(self, *, download: bool = False) -> Dataset:
        """Reads the data set."""
        return load(
            self.name,
            self.path,
            validation=self.validation,
            download=download,
            augment=self.augment,
            skip=self.skip,
        )

    def config(self) -> dict[str, Any]:
        """The source as JSON holds it; `skip` where anything is skipped."""
        config = asdict(self) | {"path": None if self.path is None else str(self.path)}
        skip = list(config.pop("skip"))
        return {**config, "skip": skip} if skip else config

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Source:
        """The inverse of `config`."""
        path, skip = config["path"], tuple(config.get("skip", ()))
        return Source(**{**config, "path": None if path is None else Path(path), "skip": skip})


def load(
    name: str,
    path: Path | None = None,
    *,
    validation: bool = False,
    download: bool = False,
    augment: str | None = None,
    skip: tuple[str, ...] = (),
) -> Dataset:
    """The data set called `name`.

    Args:
        name: one of NAMES.
        path: where its files are; bundled sets have none.
        validation: hold out the last tenth of the training images, 5,000 at most, and test on
            those.
        download: fetch what is not at `path`, for cifar10, cifar100 and svhn.
        augment: one of AUGMENTATIONS, what happens to training images; None is the data set's own
            way: crop-flip for CIFAR, crop-blur for SVHN, none for others in memory.

        skip: files of a streamed set, relative to its folder, to go without.

    Raises:
        UserError: unknown name, missing or foreign files, too few images to hold out.
    """
    if name in STREAMED and augment is not None:
        raise UserError(f"--augment is for images in memory, {name} has a way of its own")
    augment = augment or AUGMENTED.get(name, "none")
    if augment not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation {augment!r}: choose from {', '.join(AUGMENTATIONS)}")
    splits = imagefolder.without(_read(name, path, download), skip)
    if validation:
        splits = hold_out(name, splits)
    if splits.root is not None:
        mean, std = imagefolder.STATISTICS
    else:
        mean, std = (per_pixel if name in DOWNLOADABLE else per_channel)(splits.x_train)
    return Dataset(
        name=path.stem if name == "npz" and path else name,
        x_train=splits.x_train,
        y_train=splits.y_train,
        x_test=splits.x_test,
        y_test=splits.y_test,
        num_classes=splits.num_classes,
        mean=mean,
        std=std,
        augmentation=AUGMENTATIONS[augment],
        root=splits.root,
        class_names=splits.class_names,
        notes=splits.notes,
        skipped=skip,
    )


def _read(name: str, path: Path | None, download: bool) -> Splits:
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(NAMES)}")
    if download and name not in DOWNLOADABLE:
        raise UserError(f"--download is for {', '.join(DOWNLOADABLE)}, got {name}")
    if name in BUNDLED:
        if path is not None:
            raise UserError(f"--path is for data sets in files, {name} comes with scikit-learn")
        return BUNDLED[name]()
    if path is None:
        what, place = ("file", "FILE.npz") if name == "npz" else ("files", "FOLDER")
        raise UserError(f"data set {name} needs its {what}: --data {name} --path {place}")
    if name in DOWNLOADABLE:
        return DOWNLOADABLE[name](path, download)
    return OWN[name](path)
