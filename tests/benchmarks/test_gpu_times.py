"""The parts of `benchmarks/gpu.sh` that time things, at their smallest on a CPU.

In processes of their own, from the checkout, and without the packages that a GPU machine lacks or
whose version there is unknown.
"""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from support.gpu_tools import checkout_python

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")


@pytest.fixture
def python(tmp_path):
    return checkout_python(tmp_path)


def content(python, tmp_path, part, framework):
    """What the part wrote."""
    options = ("--device", "cpu", "--smallest", "--seconds", "120", "--frameworks", framework)
    done = python("-m", f"benchmarks.gpu.{part}", "--out", str(tmp_path / "out"), *options)
    found = json.loads((tmp_path / "out" / f"{part}.json").read_text())
    assert found["failed"] == [], done.stderr
    assert done.returncode == 0, done.stderr
    assert found["complete"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{part}.json"]
    return found


def of(found, table, *keys):
    """What the rows of a table say under these keys."""
    return {tuple(row[key] for key in keys) for row in found["rows"] if row["table"] == table}


def skipped(found):
    return " ".join(each["name"] for each in found["skipped"])


def assert_spreads(found):
    """Every repeated measurement has quartiles in order; what is a duration is above 0."""
    spreads = [(k, v) for row in found["rows"] for k, v in row.items() if k.endswith("_ms")]
    spreads += [(k, v) for row in found["rows"] for k, v in row.items() if k in {"us", "ratio"}]
    assert spreads
    for _, value in spreads:
        if isinstance(value, dict):
            assert 0 < value["low"] <= value["median"] <= value["high"]


@needs_torch
def test_balancing_is_timed_in_torch(python, tmp_path):
    found = content(python, tmp_path, "balance", "torch")
    combined = of(found, "torch combination", "name", "mode")
    assert {mode for _, mode in combined} == {"eager"}
    assert len(combined) == 5
    steps = of(found, "torch step", "name", "mode")
    assert {mode for _, mode in steps} == {"eager", "compiled"}
    assert len(steps) == 6
    assert_spreads(found)
    assert "torchjd" in skipped(found)
    assert "CUDA graphs" in skipped(found)


@needs_torch
def test_networks_are_timed_in_torch(python, tmp_path):
    found = content(python, tmp_path, "networks", "torch")
    assert of(found, "training", "trial") == {
        ("last exit, eager",),
        ("all exits, eager",),
        ("all exits, eager, checkpoint",),
        ("all exits, compiled by unit",),
        ("all exits, compiled",),
    }
    ways = {("eager",), ("segments, eager",)}
    assert of(found, "anytime", "way") == ways
    assert of(found, "predict", "way") == ways
    assert len([row for row in found["rows"] if row["table"] == "predict"]) == 2 * len(ways)
    assert_spreads(found)
    for name in ("timm resnet50", "timm densenet169", "all exits, CUDA graph"):
        assert name in skipped(found)


@needs_jax
def test_balancing_is_timed_in_jax(python, tmp_path):
    found = content(python, tmp_path, "balance", "jax")
    rows = of(found, "jax combination", "name", "mode")
    assert len(rows) == 10
    assert {mode for _, mode in rows} == {"a call per step", "100 steps per call"}
    assert_spreads(found)


@needs_jax
def test_networks_are_timed_in_jax(python, tmp_path):
    found = content(python, tmp_path, "networks", "jax")
    trials = {("all exits, compiled",), ("all exits, compiled, checkpoint",)}
    assert of(found, "training", "trial") == trials
    assert of(found, "anytime", "way") == of(found, "predict", "way") == {("compiled segments",)}
    assert all(row["peak_mib"] > 0 for row in found["rows"] if row["table"] == "training")
    assert_spreads(found)


SEGMENTS = """
import torch
from benchmarks.gpu.segments import Segments
from loss_balance.experiments.verification.small_networks import CHAINS
from loss_balance.reference_models.torch import AnytimeNet

for spec in CHAINS:
    height, width, channels = spec.input_shape
    first, second = torch.randn(2, 1, channels, height, width).unbind()
    net = AnytimeNet(spec).eval()
    segments = Segments(net, first, graphs=False)
    with torch.inference_mode():
        for x in (first, second):
            found = [logits.clone() for logits in segments.anytime(x)]
            torch.testing.assert_close(found, net(x))
        assert not torch.equal(net(first)[0], net(second)[0])
"""


@needs_torch
def test_segments_give_the_networks_logits_for_every_new_image(python):
    done = python("-c", SEGMENTS)
    assert done.returncode == 0, done.stderr


UTILISATION = """
from benchmarks.gpu.plan import utilisation
for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H200", "CPU, one thread"):
    print(utilisation(10**9, 1000.0, name))
"""


def test_utilisation_is_six_operations_per_multiply_add_over_the_devices_peak(python):
    *known, unknown = python("-c", UTILISATION).stdout.split()
    expected = [6e12 / 989.4e12, 6e12 / 756e12, 6e12 / 989.4e12]
    assert list(map(float, known)) == pytest.approx(expected)
    assert unknown == "None"
