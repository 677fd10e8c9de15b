from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from loss_balance.experiments.data import digit_pairs, digits, load, pair_labels
from loss_balance.experiments.errors import UserError


def arrays(**change):
    good = {
        "x_train": np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.zeros((2, 8, 8, 3), np.uint8),
        "y_test": np.array([2, 0], np.uint8),
    }
    return {k: v for k, v in (good | change).items() if v is not None}


def saved(path, **change):
    np.savez(path / "set.npz", **arrays(**change))
    return path / "set.npz"


def test_digit_pairs_is_what_it_says():
    data = digit_pairs()
    assert data.x_train.shape == (6000, 12, 12, 1)
    assert data.x_test.shape == (2000, 12, 12, 1)
    assert data.x_train.dtype == np.float32
    assert data.num_classes == 55
    assert set(data.y_train) == set(data.y_test) == set(range(55))
    assert data.x_train.mean() == pytest.approx(0, abs=1e-4)
    assert data.x_train.std() == pytest.approx(1, abs=1e-4)


def test_digit_pairs_is_the_same_every_time():
    assert digit_pairs(100, 50).fingerprint() == digit_pairs(100, 50).fingerprint()
    assert digit_pairs(100, 50).fingerprint() != digit_pairs(101, 50).fingerprint()


def test_no_test_digit_is_among_the_training_digits():
    data = digits()
    assert len(data.y_train) + len(data.y_test) == 1797
    train = {image.tobytes() for image in data.x_train}
    assert not train & {image.tobytes() for image in data.x_test}


def test_labels_number_the_unordered_pairs():
    pairs = [(a, b) for a in range(10) for b in range(a, 10)]
    low, high = np.array(pairs).T
    assert pair_labels(low, high).tolist() == list(range(55))


def test_npz_is_read_and_standardised(tmp_path):
    data = load("npz", saved(tmp_path))
    assert data.input_shape == (8, 8, 3)
    assert data.num_classes == 3
    assert data.y_test.tolist() == [2, 0]
    np.testing.assert_allclose(data.x_train.mean(axis=(0, 1, 2)), 0, atol=1e-5)


def test_grey_images_may_come_without_channels(tmp_path):
    x = np.zeros((6, 8, 8), np.float32)
    data = load("npz", saved(tmp_path, x_train=x, x_test=x[:2]))
    assert data.input_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": None, "y_test": None}, r"missing: \['x_test', 'y_test'\]"),
        ({"x_train": np.zeros((6, 8))}, r"x_train must be images .* got float64 \(6, 8\)"),
        ({"x_train": np.full((6, 8, 8, 3), np.nan)}, "x_train must be finite, got NaN"),
        ({"x_train": np.array(["a"] * 6)}, "x_train must be images"),
        ({"y_train": np.zeros(5, int)}, r"y_train must be 6 whole numbers, got int64 \(5,\)"),
        ({"y_train": np.zeros(6)}, "y_train must be 6 whole numbers, got float64"),
        ({"y_test": np.array([-1, 0])}, "y_test must hold classes from 0 on, got -1"),
        ({"y_test": np.array([3, 0])}, r"y_test must hold classes that y_train has \(0 to 2\)"),
        ({"x_test": np.zeros((2, 9, 9, 3))}, "images of one shape"),
        ({"x_test": np.zeros((0, 8, 8, 3)), "y_test": np.zeros(0, int)}, "x_test must be images"),
    ],
)
def test_a_wrong_npz_is_named_with_the_rule(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load("npz", saved(tmp_path, **change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04 a pickle", b"text"])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match="must be an npz of plain arrays"):
        load("npz", tmp_path / "set.npz")


def test_a_pickled_array_is_never_loaded(tmp_path):
    path = saved(tmp_path, x_train=np.array([{}] * 6, dtype=object))
    with pytest.raises(UserError, match="must be an npz of plain arrays"):
        load("npz", path)


def test_a_plain_npy_is_refused(tmp_path):
    np.save(tmp_path / "set.npy", np.zeros(3))
    with pytest.raises(UserError, match="must be an npz of plain arrays"):
        load("npz", tmp_path / "set.npy")


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("mnist", None, "unknown data set 'mnist': choose from digit-pairs, digits, npz"),
        ("npz", None, "needs its file: --data npz --path"),
        ("npz", "nowhere.npz", r"no file .*nowhere.npz"),
        ("digits", "nowhere.npz", "--path goes with --data npz"),
    ],
)
def test_a_wrong_name_or_path_says_what_to_do(name, path, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load(name, path and tmp_path / path)
