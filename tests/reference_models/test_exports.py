"""Folders of deployment files: what they say, and when one is not written. NumPy alone."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.networks.exports import RESIDUAL, contents

from loss_balance.reference_models.exports import About, Exit, of_spec
from loss_balance.reference_models.exports import about as layout
from loss_balance.reference_models.exports.writing import (
    largest_difference,
    new_folder,
    random_images,
    sizes,
)

KNOWN = {"name": "mine", "input_shape": (8, 8, 1), "num_classes": 2, "exits": (Exit("layer1"),)}


def test_what_is_written_is_read(tmp_path):
    about = of_spec(RESIDUAL, validation_error=(0.3, 0.2, 0.1), class_names=("a", "b", "ü"))
    segments = layout.segments_of((2, 1, 0), ".onnx")
    written = layout.Folder("onnx", about, ("exit0.onnx", "exit1.onnx", "exit2.onnx"), segments)
    written.write(tmp_path)
    assert layout.read(tmp_path) == written
    assert segments[1].inputs == segments[0].outputs[:2] == ("maps0_0", "maps0_1")
    assert segments[2].outputs == ("logits",)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": 3}, "name must be text, got 3"),
        ({"input_shape": (8, 8)}, r"must be \(height, width, channels\), got \(8, 8\)"),
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ({"exits": ()}, "the number of exits must be a whole number of at least 1, got 0"),
        ({"class_names": ("one",)}, "class_names must be one for each of 2 classes, got 1"),
        ({"class_names": (0, 1)}, "every class name must be text, got 0"),
    ],
)
def test_what_no_network_is_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        About(**KNOWN | changed)


@pytest.mark.parametrize(
    "known", [{"name": None}, {"multiply_adds": -1}, {"test_error": 1.5}, {"parameters": 0.5}]
)
def test_what_no_exit_is_is_refused(known):
    with pytest.raises(ValueError, match="must be"):
        Exit(**{"name": "layer1"} | known)


def test_errors_are_one_per_exit():
    with pytest.raises(ValueError, match=r"zip\(\)"):
        of_spec(RESIDUAL, test_error=(0.1, 0.2))


def chain(offset=0.0, at=None):
    """(images, expected, segments, exits) of three exits, the k-th of which gives k + 1."""
    images = random_images(4, (2, 2, 1))
    expected = [np.full((4, 2), k + 1, np.float32) for k in range(3)]

    def segment(k):
        wrong = offset if at == ("segment", k) else 0.0
        return lambda maps: [maps[0], expected[k] + np.float32(wrong)]

    def alone(k):
        wrong = offset if at == ("exit", k) else 0.0
        return lambda images: expected[k] + np.float32(wrong)

    return images, expected, [segment(k) for k in range(3)], [alone(k) for k in range(3)]


@pytest.mark.parametrize("what", ["segment", "exit"])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_any_file_that_is_off_is_named(what, k):
    near = 0.5e-5 * (k + 1)
    assert largest_difference(*chain(near, (what, k))) == pytest.approx(0.5e-5, rel=0.2)
    for offset in (3e-5 * (k + 1), np.nan, np.inf):
        with pytest.raises(RuntimeError, match=rf"^{what}{k} must give the network's logits to"):
            largest_difference(*chain(offset, (what, k)))
    assert largest_difference(*chain(0.1, (what, k)), tolerance=0.2) > 0.01


def test_logits_of_another_shape_are_named():
    images, expected, segments, exits = chain()
    exits[1] = lambda images: expected[1][:1]
    with pytest.raises(RuntimeError, match=r"exit1 must give logits \(4, 2\).*gives \(1, 2\)"):
        largest_difference(images, expected, segments, exits)


def write(folder, text, **options):
    with new_folder(folder, None, **{"overwrite": False} | options) as new:
        (new / layout.FILE).write_text(text)


def interrupted(folder):
    with new_folder(folder, None, overwrite=False) as new:
        (new / "half").touch()
        assert not folder.exists()
        raise KeyboardInterrupt


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a" / "deeper", "one")
    assert contents(tmp_path) == {str(tmp_path / "a" / "deeper" / layout.FILE): b"one"}
    assert sizes(tmp_path / "a") == {"deeper": 3}


def test_an_export_gives_way_to_one_that_is_whole(tmp_path):
    write(tmp_path / "a", "one")
    with (
        pytest.raises(RuntimeError, match="no"),
        new_folder(tmp_path / "a", None, overwrite=True),
    ):
        raise RuntimeError("no")
    assert contents(tmp_path) == {str(tmp_path / "a" / layout.FILE): b"one"}
    write(tmp_path / "a", "two", overwrite=True)
    assert contents(tmp_path) == {str(tmp_path / "a" / layout.FILE): b"two"}
    with pytest.raises(ValueError, match="holds an export already"):
        write(tmp_path / "a", "three")


def test_what_is_no_export_stays(tmp_path):
    (tmp_path / "file").touch()
    for taken in (tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match="a new or empty folder or one of an export"):
            write(taken, "one", overwrite=True)
    assert os.listdir(tmp_path) == ["file"]


def test_statistics_that_are_missing_leave_nothing(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        new_folder(tmp_path / "a", tmp_path / "statistics.npz", overwrite=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
