"""SVHN's MATLAB files, whole, damaged and foreign."""

from __future__ import annotations

import numpy as np
import pytest

savemat = pytest.importorskip("scipy.io").savemat
from support.experiments.published_svhn import COUNTS, images, written

from loss_balance.experiments.data import sources, svhn
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.errors import UserError


def read(folder):
    return svhn.read(folder, counts=COUNTS)


@pytest.mark.parametrize("compressed", [True, False])
def test_train_and_extra_are_trained_on_and_label_10_is_0(tmp_path, compressed):
    splits = read(written(tmp_path, compressed))
    np.testing.assert_array_equal(splits.x_train, np.concatenate([images(4), images(7)]))
    np.testing.assert_array_equal(splits.x_test, images(3))
    assert splits.y_train.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]
    assert splits.y_test.tolist() == [0, 1, 2]
    assert splits.x_train.dtype == splits.x_test.dtype == np.uint8
    assert splits.x_train.flags.c_contiguous
    assert splits.x_test.flags.c_contiguous
    assert splits.num_classes == 10


def test_missing_files_are_named(tmp_path):
    (written(tmp_path) / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"svhn needs .*: test_32x32.mat; --download fetches"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"missing at .*nowhere: train_32x32.mat, extra_32x32.mat,"):
        read(tmp_path / "nowhere")


def test_without_extra_train_alone_is_trained_on_and_that_is_said(tmp_path):
    (written(tmp_path) / "extra_32x32.mat").unlink()
    splits = read(tmp_path)
    np.testing.assert_array_equal(splits.x_train, images(4))
    assert splits.notes == ("without extra_32x32.mat: 4 training images, not the paper's all",)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_named(tmp_path, compressed, share):
    file = written(tmp_path, compressed) / "train_32x32.mat"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"train_32x32.mat must (be a whole MATLAB 5|hold the var)"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"text", b"MATLAB 7.3 MAT-file" + bytes(600), bytes(600)])
def test_a_foreign_file_is_named(tmp_path, content):
    (written(tmp_path) / "test_32x32.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"test_32x32.mat must (be a whole MATLAB 5|hold the var)"):
        read(tmp_path)


GOOD = {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.ones((3, 1), np.uint8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"X must be uint8 \(32, 32, 3, 3\), got uint8"),
        ({"X": np.zeros((32, 32, 3, 3))}, "got float64"),
        ({"X": "text"}, "X must be uint8"),
        ({"y": np.ones((2, 1))}, r"y must be \(3, 1\), from 1 to 10, got \(2, 1\)"),
        ({"y": np.zeros((3, 1))}, "from 1 to 10, got .* 0.0 to 1|0.0 to 0.0"),
        ({"y": np.full((3, 1), 11)}, "got .* 11 to 11"),
        ({"y": np.array([["a"], ["b"], ["c"]], dtype=object)}, "y must be"),
    ],
)
def test_other_variables_are_refused(tmp_path, change, message):
    savemat(written(tmp_path) / "test_32x32.mat", {**GOOD, **change})
    with pytest.raises(UserError, match=f"test_32x32.mat: .*{message}"):
        read(tmp_path)


def test_a_file_without_the_variables_is_refused(tmp_path):
    savemat(written(tmp_path) / "test_32x32.mat", {"X": GOOD["X"]})
    with pytest.raises(UserError, match=r"must hold the variables X and y; missing: 'y'"):
        read(tmp_path)


def test_load_insists_on_the_published_number_of_images(tmp_path):
    with pytest.raises(UserError, match=r"X must be uint8 \(32, 32, 3, 73257\), got .* 3, 4\)"):
        sources.load("svhn", written(tmp_path))


def test_load_augments_as_the_paper(tmp_path, monkeypatch):
    for part, count in COUNTS.items():
        monkeypatch.setitem(svhn.COUNTS, part, count)
    loaded = sources.load("svhn", written(tmp_path))
    assert loaded.augmentation == AUGMENTATIONS["crop-blur"]
    assert loaded.mean.shape == (32, 32, 3)
