"""Files for deployment from a PyTorch network: ONNX, and programs of `torch.export`.

Takes anything with `segments()`: `AnytimeNet`, and what else gives a module for what is computed up
to each exit from the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from loss_balance.extras import require
from loss_balance.reference_models.exports import about as layout
from loss_balance.reference_models.exports import writing
from loss_balance.reference_models.exports.about import About
from loss_balance.reference_models.exports.writing import Array, Written
from loss_balance.reference_models.torch.formats import Format, Onnx, Pt2, Run


def to_onnx(
    net: Any,
    folder: str | os.PathLike[str],
    about: About | None = None,
    *,
    statistics: Path | None = None,
    overwrite: bool = False,
    tolerance: float = writing.TOLERANCE,
) -> Written:
    """Writes ONNX files, for `reference_models.onnx` or any other runtime and for any batch.

    `segment0.onnx`, ... and `exit0.onnx`, ... take images (B, H, W, C) in float32. Each was run by
    onnxruntime and compared with the network before this returns.

    Args:
        net: in evaluation mode and float32, on the CPU.
        folder: new or empty, or with `overwrite` one that an export left.
        about: what is known of the network; by default what its spec knows.
        statistics: of its images, as in a run's folder; copied along.
        overwrite: whether an earlier export may go.
        tolerance: the largest difference to the network, as a share of the largest logit.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: the folder may not be written, or the network is in training mode, in another
            type or elsewhere.
        RuntimeError: a file does not give the network's logits. No folder is left then.
    """
    require("export", "writing ONNX")
    return _export(Onnx(), net, folder, about, statistics, overwrite=overwrite, tolerance=tolerance)


def to_torch(
    net: Any,
    folder: str | os.PathLike[str],
    about: About | None = None,
    *,
    statistics: Path | None = None,
    overwrite: bool = False,
    tolerance: float = writing.TOLERANCE,
) -> Written:
    """Writes programs of `torch.export`, which `torch.export.load(file).module()` reads back.

    `segment0.pt2`, ... and `exit0.pt2`, ... take images (B, C, H, W) in float32. Arguments and
    errors are those of `to_onnx`.
    """
    return _export(Pt2(), net, folder, about, statistics, overwrite=overwrite, tolerance=tolerance)


class _Chain(nn.Module):
    """Segments one after the other.

    Args:
        segments: one, or all up to an exit.
        from_numpy: whether the images come as (B, H, W, C).
        alone: whether to give the last logits alone.
    """

    def __init__(
        self, segments: Sequence[nn.Module], *, from_numpy: bool = False, alone: bool = False
    ) -> None:
        super().__init__()
        self.segments = nn.ModuleList(segments)
        self.from_numpy, self.alone = from_numpy, alone
        self.training = False

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        if self.from_numpy:
            maps = (maps[0].permute(0, 3, 1, 2),)
        for segment in self.segments:
            *maps, logits = segment(*maps)
        return (logits,) if self.alone else (*maps, logits)


@torch.no_grad()
def _export(
    form: Format,
    net: Any,
    folder: str | os.PathLike[str],
    about: About | None,
    statistics: Path | None,
    *,
    overwrite: bool,
    tolerance: float,
) -> Written:
    about = layout.of_network(net) if about is None else about
    _check_plain(net)
    segments = net.segments()
    given, images = (
        writing.random_images(count, about.input_shape)
        for count in (writing.TRACED, writing.CHECKED)
    )
    expected = [logits.numpy() for logits in net(torch.from_numpy(_channels_first(images)))]
    from_numpy = layout.FORMATS[form.name] == "NHWC"
    if not from_numpy:
        given, images = _channels_first(given), _channels_first(images)
    start = torch.from_numpy(given)
    with writing.new_folder(folder, statistics, overwrite=overwrite) as new:
        each = [
            _Chain([segment], from_numpy=from_numpy and k == 0)
            for k, segment in enumerate(segments)
        ]
        handed, programs = _trace(each, start)
        records = layout.segments_of(handed, form.ending)
        pairs = zip(records, programs, strict=True)
        runs = [form.save_segment(new, record, program) for record, program in pairs]
        wholes = [
            _Chain(segments[: k + 1], from_numpy=from_numpy, alone=True)
            for k in range(len(segments))
        ]
        exits = form.save_exits(new, records, lambda k: _program(wholes[k], [start]))
        files = tuple(f"exit{k}{form.ending}" for k in range(len(segments)))
        layout.Folder(form.name, about, files, records).write(new)
        alone = [partial(_first, run) for run in exits]
        difference = writing.largest_difference(images, expected, runs, alone, tolerance)
    found = Path(folder).resolve()
    return Written(found, writing.sizes(found), difference)


def _trace(
    segments: Sequence[nn.Module], images: Tensor
) -> tuple[list[int], list[ExportedProgram]]:
    """(how many maps each hands on, each as a program)."""
    maps: Sequence[Tensor] = [images]
    handed, programs = [], []
    for segment in segments:
        programs.append(_program(segment, maps))
        *maps, _ = segment(*maps)
        handed.append(len(maps))
    return handed, programs


def _program(module: nn.Module, given: Sequence[Tensor]) -> ExportedProgram:
    """The module traced for any number of samples."""
    batch = Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in given),)  # of the one argument that *maps is
    program = torch.export.export(module, tuple(given), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths on this machine
    return program


def _first(run: Run, images: Array) -> Array:
    return run([images])[0]


def _check_plain(net: Any) -> None:
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        other = tensor.is_floating_point() and tensor.dtype != torch.float32
        if other or tensor.device.type != "cpu":
            raise ValueError(
                f"a network to export must be in float32 on the CPU, got {name} in {tensor.dtype} "
                f"on {tensor.device}"
            )


def _channels_first(images: Array) -> Array:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
