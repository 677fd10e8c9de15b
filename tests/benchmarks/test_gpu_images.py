"""What travels to a GPU machine: the first images of a packed set."""

from __future__ import annotations

import io

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
from support.gpu_tools import checkout_python

SUBSET = ("-m", "benchmarks.gpu.images", "packed.npz", "data/subset.npz")
UNPACK = """
from pathlib import Path
import numpy as np
from benchmarks.gpu import images

images.tempfile.gettempdir = lambda: "."
with np.load(images.source_of("data/subset.npz", smallest=False).path) as content:
    np.savez("found.npz", **content)
"""


@pytest.fixture
def drawn(tmp_path):
    """Seven images of different lengths as files, the last three of them for testing."""
    images = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        image[:, : number % 4] = number
    packed = {}
    for split, chosen in (("train", images[:4]), ("test", images[4:])):
        files = [png(image) for image in chosen]
        packed[f"{split}_bytes"] = np.frombuffer(b"".join(files), np.uint8)
        packed[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        packed[f"{split}_labels"] = np.arange(len(files)) % 2
    np.savez(tmp_path / "packed.npz", **packed)
    return images


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_subset_holds_the_first_images_of_either_split_and_their_labels(tmp_path, drawn):
    python = checkout_python(tmp_path)
    done = python(*SUBSET, "--train", "3", "--test", "2")
    assert done.returncode == 0, done.stderr
    assert python("-c", UNPACK).returncode == 0
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["x_train"], drawn[:3])
        np.testing.assert_array_equal(found["x_test"], drawn[4:6])
        assert found["y_train"].tolist() == [0, 1, 0]
        assert found["y_test"].tolist() == [0, 1]
    with np.load(tmp_path / "packed.npz") as whole, np.load(tmp_path / "data/subset.npz") as part:
        for split in ("train", "test"):
            assert len(part[f"{split}_bytes"]) == part[f"{split}_offsets"][-1]
            assert len(part[f"{split}_bytes"]) < len(whole[f"{split}_bytes"])


@pytest.mark.parametrize("train", ["0", "5"])
def test_more_images_than_there_are_or_none_are_refused(tmp_path, drawn, train):
    done = checkout_python(tmp_path)(*SUBSET, "--train", train, "--test", "2")
    assert done.returncode == 1
    assert f"train must be 1 to 4 images of packed.npz, got {train}" in done.stderr
    assert not (tmp_path / "data").exists()
