"""Networks to export, each family in its smallest form, and what an exported folder must hold."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks.contract import random_weights

from loss_balance.reference_models import families
from loss_balance.reference_models.description.multiscale import MultiScaleStem, MultiScaleUnit
from loss_balance.reference_models.description.parts import ConvHead
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.exports import about as layout

RESIDUAL = families.resann(1, 4, 3, input_shape=(8, 12, 3))
DENSE = families.denseann(1, 4, 3, input_shape=(8, 12, 2), period=2)
MULTISCALE = AnytimeSpec(  # two maps are handed on, then a list of one
    "multiscale",
    input_shape=(8, 12, 3),
    stem=MultiScaleStem(3, (4, 6), downsample=False),
    units=(
        MultiScaleUnit((4, 6), (2, 3), (1, 2)),
        MultiScaleUnit((6, 9), (3,), (1, 2)),
        MultiScaleUnit((12,), (4,), (2,)),
    ),
    exits=(0, 1, 2),
    heads=(ConvHead(9, 6, 3), ConvHead(12, 6, 3), ConvHead(16, 6, 3)),
)
FAMILIES = (RESIDUAL, DENSE, MULTISCALE)
TINY = RESIDUAL.single_exit(0)  # exported in no time
BATCHES = (1, 3)

all_families = pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.name)


def images_for(spec, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *spec.input_shape), np.float32)


def filled(network, spec):
    """The framework's network with random weights and statistics."""
    net = network(spec)
    net.load_weights(random_weights(spec))
    return net


def assert_close(found, expected):
    """To 1e-5 of the largest logit."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def check_segments(segments, images, expected):
    """`segments()` of a network, called as they are; arrays of whatever framework."""
    maps = [images]
    for k, (segment, wanted) in enumerate(zip(segments, expected, strict=True)):
        found = segment(*maps)
        assert isinstance(found, tuple)
        *maps, logits = found
        assert bool(maps) == (k < len(expected) - 1)
        assert_close(np.asarray(logits), wanted)


def check_folder(folder, spec, images, expected, run):
    """Every segment and exit gives the logits; `run(name, inputs, outputs, arrays)` runs one."""
    written = layout.read(folder)
    assert written.about == layout.of_spec(spec)
    maps = [images]
    for k, segment in enumerate(written.segments):
        *maps, logits = run(segment.file, segment.inputs, segment.outputs, maps)
        assert len(maps) == len(segment.outputs) - 1
        assert_close(logits, expected[k])
        (alone,) = run(written.exits[k], ("images",), ("logits",), [images])
        assert_close(alone, expected[k])
    assert k == len(spec.exits) - 1


class Wrong:
    """A network whose segments are not what it computes, but those of another."""

    def __init__(self, net, other):
        self.net, self.anytime = other, net.anytime
        self.call = net

    def __getattr__(self, name):
        return getattr(self.net, name)

    def __call__(self, *args, **options):
        return self.call(*args, **options)


def check_refused(write, net, other, folder):
    """A network that its files do not equal leaves nothing, and an earlier export as it was."""
    with pytest.raises(RuntimeError, match=r"segment0 must give the network's logits to 1e-05"):
        write(Wrong(net, other), folder / "new")
    assert list(folder.iterdir()) == []
    write(net, folder / "kept")
    before = contents(folder)
    with pytest.raises(RuntimeError, match="nothing was written"):
        write(Wrong(net, other), folder / "kept", overwrite=True)
    with pytest.raises(ValueError, match="holds an export already"):
        write(net, folder / "kept")
    assert contents(folder) == before
    (folder / "other").mkdir()
    (folder / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="a new or empty folder or one of an export, got"):
        write(net, folder / "other", overwrite=True)
    assert (folder / "other" / "thesis.tex").exists()


def contents(folder):
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
