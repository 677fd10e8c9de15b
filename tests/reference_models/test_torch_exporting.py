"""What PyTorch exports equals its network, or is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.networks.exports import (
    BATCHES,
    RESIDUAL,
    TINY,
    all_families,
    check_folder,
    check_refused,
    check_segments,
    filled,
    images_for,
)

torch = pytest.importorskip("torch")
for needed in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed)

import onnx
import onnxruntime

from loss_balance.reference_models.exports import About, Exit
from loss_balance.reference_models.exports import about as layout
from loss_balance.reference_models.torch import AnytimeNet, native
from loss_balance.reference_models.torch.exporting import to_onnx, to_torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net_of(spec):
    return filled(AnytimeNet, spec).eval().requires_grad_(False)


def logits(net, images):
    return [x.numpy() for x in net(native(images))]


@all_families
def test_segments_give_what_a_call_gives(spec):
    net = net_of(spec)
    images = images_for(spec, 3)
    check_segments(net.segments(), native(images), logits(net, images))


def test_segments_share_the_networks_parts():
    net = net_of(RESIDUAL)
    images = images_for(RESIDUAL, 2)
    segments = net.segments()
    weights = {name: 2 * array for name, array in net.dump_weights().items()}
    net.load_weights(weights)
    check_segments(segments, native(images), logits(net, images))
    assert not any(segment.training for segment in segments)


def test_segments_of_a_network_in_training_are_refused_and_it_stays_so():
    net = net_of(RESIDUAL).train()
    with pytest.raises(ValueError, match=r"in evaluation mode: call net\.eval\(\) first"):
        net.segments()
    assert all(module.training for module in net.modules())


@all_families
def test_onnx_equals_the_network(spec, tmp_path):
    net = net_of(spec)
    written = to_onnx(net, tmp_path / "made")
    assert written.difference <= 1e-5
    assert set(written.sizes) == {file.name for file in (tmp_path / "made").iterdir()}

    def run(file, inputs, outputs, arrays):
        session = onnxruntime.InferenceSession(
            tmp_path / "made" / file, providers=["CPUExecutionProvider"]
        )
        assert [x.name for x in session.get_inputs()] == list(inputs)
        return session.run(list(outputs), dict(zip(inputs, arrays, strict=True)))

    for count in BATCHES:
        images = images_for(spec, count)
        check_folder(tmp_path / "made", spec, images, logits(net, images), run)
    for file in (tmp_path / "made").glob("*.onnx"):
        onnx.checker.check_model(file, full_check=True)
        assert str(ROOT).encode() not in file.read_bytes()


def test_an_exit_has_no_head_but_its_own(tmp_path):
    to_onnx(net_of(RESIDUAL), tmp_path / "made")
    for k in range(len(RESIDUAL.exits)):
        model = onnx.load(tmp_path / "made" / f"exit{k}.onnx")
        assert [output.name for output in model.graph.output] == ["logits"]
        assert [node.op_type for node in model.graph.node].count("Gemm") == 1


@all_families
def test_programs_of_torch_export_equal_the_network(spec, tmp_path):
    net = net_of(spec)
    written = to_torch(net, tmp_path / "made")
    assert written.difference <= 1e-5
    programs = {
        file.name: torch.export.load(file).module() for file in (tmp_path / "made").glob("*.pt2")
    }

    def run(file, inputs, outputs, arrays):
        found = programs[file](*map(torch.from_numpy, arrays))
        assert len(found) == len(outputs)
        return [x.numpy() for x in found]

    for count in BATCHES:
        images = images_for(spec, count)
        first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        check_folder(tmp_path / "made", spec, first, logits(net, images), run)


class Own(torch.nn.Module):
    """A network of someone's own: its segments have arguments by name and hand on two tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(2, 4, 3), torch.nn.Linear(4, 5)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))

    def segments(self):
        return [OwnFirst(self).eval(), OwnSecond(self).eval()]

    def forward(self, x):
        first, second = self.segments()
        *maps, logits = first(x)
        return [logits, *second(*maps)]


class OwnFirst(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.conv, self.mask = net.first, net.mask

    def forward(self, images):
        x = self.conv(images).relu()
        pooled = x.mean(dim=(2, 3)) * self.mask
        return x, pooled, pooled[:, :3]


class OwnSecond(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.linear = net.second

    def forward(self, x, pooled):
        return (self.linear(x.amax(dim=(2, 3)) + pooled)[:, :3],)


@pytest.mark.parametrize("write", [to_onnx, to_torch])
def test_a_network_of_ones_own_is_exported_by_its_segments(write, tmp_path):
    exits = (Exit("first"), Exit("second", test_error=0.5))
    about = About("own", (6, 8, 2), 3, exits)
    written = write(Own().eval(), tmp_path / "made", about)
    assert written.difference <= 1e-5
    found = layout.read(tmp_path / "made")
    assert found.about == about
    assert [len(segment.outputs) for segment in found.segments] == [3, 1]


@pytest.mark.parametrize("write", [to_onnx, to_torch])
def test_an_export_that_is_not_its_network_leaves_nothing(write, tmp_path):
    other = AnytimeNet(TINY, seed=1).eval()
    check_refused(write, net_of(TINY), other, tmp_path)


def test_an_earlier_export_gives_way_when_asked(tmp_path):
    to_torch(net_of(TINY), tmp_path)  # an empty folder is as good as none
    to_onnx(net_of(TINY), tmp_path, overwrite=True)
    assert layout.read(tmp_path).format == "onnx"
    assert not list(tmp_path.glob("*.pt2"))


def test_networks_that_cannot_be_exported_are_named(tmp_path):
    with pytest.raises(ValueError, match="evaluation mode"):
        to_onnx(net_of(TINY).train(), tmp_path / "made")
    with pytest.raises(ValueError, match=r"float32 on the CPU, got stem.* torch.bfloat16"):
        to_torch(net_of(TINY).bfloat16(), tmp_path / "made")
    with pytest.raises(ValueError, match="about must say what a network without a spec is"):
        to_onnx(torch.nn.Linear(1, 1), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_names_the_command_that_installs_it(missing, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"writing ONNX needs .*'loss-balance\[export\]'"):
        to_onnx(net_of(TINY), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
