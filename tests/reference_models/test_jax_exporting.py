"""What JAX exports equals its network, or is not there."""

from __future__ import annotations

import sys

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

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
pytest.importorskip("flatbuffers")

from jax import export

from loss_balance.reference_models.jax import AnytimeNet
from loss_balance.reference_models.jax.exporting import to_jax


def net_of(spec):
    net = filled(AnytimeNet, spec)
    net.eval()
    return net


def logits(net, images):
    return [np.asarray(x) for x in net(images)]


@all_families
def test_segments_give_what_a_call_gives(spec):
    net = net_of(spec)
    images = images_for(spec, 3)
    check_segments(net.segments(), images, logits(net, images))


def test_segments_compute_in_evaluation_mode_whatever_is_set():
    net = net_of(RESIDUAL)
    images = images_for(RESIDUAL, 3)
    expected = logits(net, images)
    net.train()
    check_segments(net.segments(), images, expected)


@all_families
def test_programs_of_jax_export_equal_the_network(spec, tmp_path):
    net = net_of(spec)
    written = to_jax(net, tmp_path / "made")
    assert written.difference <= 1e-5
    programs = {
        file.name: export.deserialize(bytearray(file.read_bytes()))
        for file in (tmp_path / "made").glob("*.jax")
    }
    assert {program.platforms for program in programs.values()} == {("cpu", "cuda")}

    def run(file, inputs, outputs, arrays):
        found = programs[file].call(*arrays)
        assert len(found) == len(outputs)
        return [np.asarray(x) for x in found]

    for count in BATCHES:
        images = images_for(spec, count)
        check_folder(tmp_path / "made", spec, images, logits(net, images), run)


def test_an_export_that_is_not_its_network_leaves_nothing(tmp_path):
    check_refused(to_jax, net_of(TINY), AnytimeNet(TINY, seed=1), tmp_path)


def test_a_missing_flatbuffers_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r"needs flatbuffers: .*'loss-balance\[export\]'"):
        to_jax(net_of(TINY), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
