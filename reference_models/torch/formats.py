"""How a traced program becomes a file, by format, and how the file is read back and run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram

from loss_balance.reference_models.exports.about import Segment
from loss_balance.reference_models.exports.writing import Array

Run = Callable[[Sequence[Array]], Sequence[Array]]  # as read back from a file
INPUT, OUTPUT = "images", "logits"  # of an exit


class Format(Protocol):
    """What `exporting` asks of one."""

    name: str
    ending: str

    def save_segment(self, folder: Path, segment: Segment, program: ExportedProgram) -> Run:
        """Writes the file of a segment."""

    def save_exits(
        self, folder: Path, segments: Sequence[Segment], trace: Callable[[int], ExportedProgram]
    ) -> list[Run]:
        """Writes `exit0`, ...; their segments are there already.

        Args:
            folder: of the files.
            segments: what they are made of.
            trace: the program of an exit, traced as a whole.
        """


class Pt2:
    """Programs of `torch.export`."""

    name: str = "torch"
    ending: str = ".pt2"

    def save_segment(self, folder: Path, segment: Segment, program: ExportedProgram) -> Run:
        return self._save(folder / segment.file, program)

    def save_exits(
        self, folder: Path, segments: Sequence[Segment], trace: Callable[[int], ExportedProgram]
    ) -> list[Run]:
        return [
            self._save(folder / f"exit{k}{self.ending}", trace(k)) for k in range(len(segments))
        ]

    def _save(self, path: Path, program: ExportedProgram) -> Run:
        torch.export.save(program, path)
        module = torch.export.load(path).module()
        return lambda arrays: [x.numpy() for x in module(*map(torch.from_numpy, arrays))]


class Onnx:
    """ONNX, each file with its weights in it.

    An exit is put together from the segments' graphs: tracing it takes as long as all of them.
    """

    name: str = "onnx"
    ending: str = ".onnx"

    def save_segment(self, folder: Path, segment: Segment, program: ExportedProgram) -> Run:
        with warnings.catch_warnings():
            # torch.onnx's own, of its copy of the program, in torch 2.13
            warnings.filterwarnings("ignore", ".*treespec", FutureWarning)
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=segment.inputs,
                output_names=segment.outputs,
                external_data=False,
            )
        assert made is not None  # it is for dynamo=False
        return _saved(_bare(made.model_proto), folder / segment.file, segment)

    def save_exits(
        self,
        folder: Path,
        segments: Sequence[Segment],
        trace: Callable[[int], ExportedProgram],  # noqa: ARG002 (not needed)
    ) -> list[Run]:
        import onnx
        from onnx.compose import add_prefix, merge_models

        runs: list[Run] = []
        trunk: Any = None  # all up to the maps that the exit before hands on
        for k, segment in enumerate(segments):
            model = onnx.load(folder / segment.file)
            here, before = f"segment{k}/", f"segment{k - 1}/"
            joined = [(before + name, here + name) for name in segment.inputs]
            ending = add_prefix(model, here, rename_inputs=k > 0, rename_outputs=False)
            going = add_prefix(model, here, rename_inputs=k > 0)
            maps = [here + name for name in segment.outputs[:-1]]
            if trunk is None:
                extract = onnx.utils.Extractor
                alone = extract(ending).extract_model([INPUT], [OUTPUT])
                trunk = extract(going).extract_model([INPUT], maps) if maps else None
            else:
                alone = merge_models(trunk, ending, joined, outputs=[OUTPUT])
                trunk = merge_models(trunk, going, joined, outputs=maps) if maps else None
            file = f"exit{k}{self.ending}"
            runs.append(_saved(alone, folder / file, Segment(file, (INPUT,), (OUTPUT,))))
        return runs


def _bare(model: Any) -> Any:
    """Without what the exporter notes of the code that was traced, paths on this machine too."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    for weight in graph.initializer:
        weight.ClearField("metadata_props")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:  # the one that is not known
                size.dim_param = "batch"
    return model


def _saved(model: Any, path: Path, segment: Segment) -> Run:
    import onnx
    import onnxruntime

    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        given = dict(zip(segment.inputs, arrays, strict=True))
        found: Sequence[Array] = session.run(list(segment.outputs), given)
        return found

    return run
