"""What a folder of deployment files says of its network: `exits.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loss_balance.checks import check_count, check_range
from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.own import NetSpec, OwnSpec

VERSION = 1
FILE = "exits.json"
STATISTICS = "statistics.npz"  # how an image becomes the input, as a run's folder has it
FORMATS = {  # and the order of an image's axes in each
    "onnx": "NHWC",
    "torch": "NCHW",
    "savedmodel": "NHWC",
    "jax": "NHWC",
}


@dataclass(frozen=True)
class Exit:
    """What is known of one exit; errors are shares of wrong answers in [0, 1]."""

    name: str  # of the part that it stands after
    multiply_adds: int | None = None  # per image, up to here with all earlier heads
    parameters: int | None = None  # trainable ones, likewise
    validation_error: float | None = None
    test_error: float | None = None

    def __post_init__(self) -> None:
        _check_text("the name of an exit", self.name)
        for name in ("multiply_adds", "parameters"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 0)
        for name in ("validation_error", "test_error"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0.0, 1.0)


@dataclass(frozen=True)
class About:
    """What is known of a network.

    Args:
        name: free text.
        input_shape: (height, width, channels) of an image.
        num_classes: logits per exit.
        exits: in order.
        class_names: in the order of the labels; none if not known.

    Raises:
        ValueError: one is not that.
    """

    name: str
    input_shape: Shape
    num_classes: int
    exits: tuple[Exit, ...]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("input_shape", "exits", "class_names"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        _check_text("name", self.name)
        if len(self.input_shape) != 3:
            raise ValueError(
                f"input_shape must be (height, width, channels), got {self.input_shape}"
            )
        for size in self.input_shape:
            check_count("every entry of input_shape", size)
        check_count("num_classes", self.num_classes)
        check_count("the number of exits", len(self.exits))
        if len(self.class_names) not in (0, self.num_classes):
            raise ValueError(
                f"class_names must be one for each of {self.num_classes} classes, got "
                f"{len(self.class_names)}"
            )
        for name in self.class_names:
            _check_text("every class name", name)


def of_spec(
    spec: NetSpec,
    *,
    validation_error: Sequence[float] | None = None,
    test_error: Sequence[float] | None = None,
    class_names: Sequence[str] = (),
) -> About:
    """What a network's spec knows, and errors of each exit where they are known.

    Raises:
        ValueError: errors or names are not as many as exits or classes.
    """
    unknown = [None] * len(spec.exits)
    columns = zip(
        spec.names if isinstance(spec, OwnSpec) else (f"unit{unit}" for unit in spec.exits),
        *zip(*spec.costs(), strict=True),
        unknown if validation_error is None else validation_error,
        unknown if test_error is None else test_error,
        strict=True,
    )
    exits = tuple(Exit(*column) for column in columns)
    return About(spec.name, spec.input_shape, spec.num_classes, exits, tuple(class_names))


def of_network(net: Any) -> About:
    """What a network knows of itself, by its spec or as one that `with_exits` made.

    Raises:
        ValueError: it is neither.
    """
    if hasattr(net, "spec"):
        return of_spec(net.spec)
    if not hasattr(net, "trained_names"):
        raise ValueError(
            f"about must say what a network without a spec is, got None for {type(net).__name__}"
        )
    exits = tuple(Exit(name, *cost) for name, cost in zip(net.names, net.costs(), strict=True))
    name = type(net.backbone).__name__ if hasattr(net, "backbone") else type(net).__name__
    return About(name, net.input_shape, net.num_classes, exits)


@dataclass(frozen=True)
class Segment:
    """Where one is, and what it takes and gives by name, in order; the logits are last."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def segments_of(handed: Sequence[int], ending: str) -> tuple[Segment, ...]:
    """The records of segments that hand on so many maps each; `ending` as `.onnx`."""
    segments = []
    inputs: tuple[str, ...] = ("images",)
    for k, count in enumerate(handed):
        maps = tuple(f"maps{k}_{i}" for i in range(count))
        segments.append(Segment(f"segment{k}{ending}", inputs, (*maps, "logits")))
        inputs = maps
    return tuple(segments)


@dataclass(frozen=True)
class Folder:
    """What `exits.json` holds."""

    format: str
    about: About
    exits: tuple[str, ...]  # the file of each exit, from images to its logits
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        count = len(self.about.exits)
        if len(self.exits) != count or len(self.segments) != count:
            raise ValueError(
                f"there must be a file and a segment for each of {count} exits, got "
                f"{len(self.exits)} and {len(self.segments)}"
            )
        for file in (*self.exits, *(segment.file for segment in self.segments)):
            if not file or file in (".", "..") or Path(file).name != file or "\\" in file:
                raise ValueError(f"a file must be in the folder itself, got {file!r}")
        before: tuple[str, ...] = ("images",)
        for segment in self.segments:
            if segment.inputs != before or segment.outputs[-1:] != ("logits",):
                raise ValueError(
                    f"{segment.file} must take {', '.join(before)} and give logits last, got "
                    f"{segment.inputs} and {segment.outputs}"
                )
            before = segment.outputs[:-1]

    def write(self, folder: Path) -> None:
        """Writes it into the folder."""
        about = asdict(self.about)
        for file, known in zip(self.exits, about["exits"], strict=True):
            known["file"] = file
        value = {"version": VERSION, "format": self.format, "layout": FORMATS[self.format]}
        value |= about | {"segments": [asdict(segment) for segment in self.segments]}
        (folder / FILE).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Folder:
    """What is in the folder.

    Raises:
        ValueError: there is no `exits.json` in it, or it is not as an export left it.
    """
    path = folder / FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']!r}, and this reads {VERSION}")
        exits = [{**known} for known in value["exits"]]
        files = tuple(known.pop("file") for known in exits)
        named = {name: value[name] for name in ("name", "input_shape", "num_classes")}
        about = About(
            **named, exits=tuple(Exit(**known) for known in exits), class_names=value["class_names"]
        )
        segments = tuple(
            Segment(each["file"], tuple(each["inputs"]), tuple(each["outputs"]))
            for each in value["segments"]
        )
        return Folder(value["format"], about, files, segments)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ValueError(f"{path} must be a file that can be read, got: {why}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} must be as an export left it, got: {what[:200]}") from error


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
