"""`loss-balance models` lists what the specs say."""

from __future__ import annotations

import re

import pytest
from support.networks.contract import COUNTS

pytest.importorskip("typer")

from typer.testing import CliRunner

from loss_balance.experiments.cli import app
from loss_balance.reference_models import families


def printed(*arguments):
    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_published_network_has_a_row_with_its_counts():
    output = printed()
    for name in families.PUBLISHED:
        spec = families.get(name)
        counts = COUNTS[f"{name}/{spec.num_classes}"]
        (row,) = (line for line in output.splitlines() if re.search(rf"│ {name} ", line))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        height, width, channels = spec.input_shape
        assert cells == [
            name,
            f"{height}x{width}x{channels}",
            str(spec.num_classes),
            str(len(counts["exits"])),
            f"{counts['parameters']:,}",
            f"{counts['multiply_adds'][-1]:,}",
        ]
    assert all(form in output for form in families.FORMS)


def test_one_network_has_a_row_per_exit():
    output = printed("msdnet-24", "--classes", "100")
    for multiply_adds in COUNTS["msdnet-24/100"]["multiply_adds"]:
        assert f"{multiply_adds:,}" in output


def test_an_unknown_name_is_one_line():
    done = CliRunner().invoke(app, ["models", "resnet-50"])
    assert "a network's name must be like" in str(done.exception)
