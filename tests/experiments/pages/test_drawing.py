"""A picture shows every map, every connection and every exit of its network."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from matplotlib.patches import FancyBboxPatch

from loss_balance.experiments.pages.network_plot import draw, picture
from loss_balance.experiments.verification.small_networks import CHAINS, MULTISCALE
from loss_balance.reference_models.description.multiscale import MultiScaleUnit


@pytest.mark.parametrize("spec", CHAINS, ids=lambda spec: spec.name)
def test_every_map_connection_and_exit_is_drawn(spec):
    (axes,) = picture(spec).axes
    maps = [shape for features in spec.features() for shape in features]
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(maps)
    texts = [text.get_text() for text in axes.texts]
    assert sorted(t for t in texts if t.isdigit()) == sorted(str(shape[2]) for shape in maps)
    expected = sum(
        len(unit.edges()) if isinstance(unit, MultiScaleUnit) else len(made)
        for unit, made in zip(spec.units, spec.features()[1:], strict=True)
    )
    assert len([text for text in axes.texts if text.get_text() == ""]) == expected
    assert len([t for t in texts if t.endswith(" %")]) == len(spec.exits)
    assert "100 %" in texts


def test_the_file_is_of_the_kind_its_name_says(tmp_path):
    draw(MULTISCALE, tmp_path / "net.svg")
    assert b"<svg" in (tmp_path / "net.svg").read_bytes()
