"""The paper's comparison of `benchmarks/gpu.sh`, at its smallest on a CPU."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")
from gpu_tools import ROOT, checkout_python  # noqa: E402


def test_every_scheme_and_opt_is_reported_and_a_second_call_trains_nothing(tmp_path):
    python = checkout_python(tmp_path)
    arguments = ("--out", "out", "--device", "cpu", "--smallest", "--seconds", "300")
    python("-m", "benchmarks.gpu.paper", *arguments)
    found = json.loads((tmp_path / "out" / "paper.json").read_text())
    assert found["complete"]
    assert not found["failed"]
    for table in ("test_error", "train_loss"):
        rows = {row["name"]: row for row in found["rows"] if row["table"] == table}
        assert set(rows) == {"const", "adaloss", "opt"}
        assert rows["opt"]["1 over OPT, %"] == 0.0
        assert rows["const"]["1 over OPT, %"] != 0.0
    finished = (tmp_path / "out" / "paper" / "runs").glob("*/result.json")
    before = {file: file.stat().st_mtime_ns for file in finished}
    assert len(before) == 5
    python("-m", "benchmarks.gpu.paper", *arguments)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    again = json.loads((tmp_path / "out" / "paper.json").read_text())
    assert again["rows"] == found["rows"]


def test_without_images_the_part_is_skipped_by_name(tmp_path):
    python = checkout_python(tmp_path)
    done = python("-m", "benchmarks.gpu.paper", "--out", "out", "--device", "cpu")
    assert done.returncode == 0
    (skipped,) = json.loads((tmp_path / "out" / "paper.json").read_text())["skipped"]
    assert skipped["name"] == "paper"


def test_packed_images_come_out_as_they_went_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import images

    monkeypatch.setattr(images.tempfile, "gettempdir", lambda: str(tmp_path))
    drawn = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    files = []
    for image in drawn:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    packed = {}
    for split, chosen in (("train", files[:5]), ("test", files[5:])):
        packed[f"{split}_bytes"] = np.frombuffer(b"".join(chosen), np.uint8)
        packed[f"{split}_offsets"] = np.cumsum([0, *map(len, chosen)])
        packed[f"{split}_labels"] = np.arange(len(chosen))
    np.savez(tmp_path / "packed.npz", **packed)
    source = images.source_of(str(tmp_path / "packed.npz"), smallest=False)
    with np.load(source.path) as content:
        np.testing.assert_array_equal(content["x_train"], drawn[:5])
        np.testing.assert_array_equal(content["x_test"], drawn[5:])
        assert content["y_test"].tolist() == [0, 1]
