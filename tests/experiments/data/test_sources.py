"""Data sets by name, and those that come in one npz or with scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from support.experiments.standardising import standardise

pytest.importorskip("sklearn")
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.dataset import per_channel, per_pixel
from loss_balance.experiments.data.digits import digit_pairs, pair_labels
from loss_balance.experiments.data.sources import NAMES, load
from loss_balance.experiments.errors import UserError


def test_looking_at_data_loads_no_framework_and_nothing_heavy():
    code = (
        "import sys, loss_balance.experiments.data\n"
        "heavy = 'torch tensorflow jax grain PIL pooch scipy sklearn'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def many(count):
    """A training split of so many images, each with its number in it."""
    numbers = np.arange(count, dtype=np.uint16)
    x = np.stack([numbers >> 8, numbers & 255], axis=1).astype(np.uint8)
    return {"x_train": x.reshape(count, 1, 1, 2), "y_train": numbers % 3} | {
        "x_test": np.zeros((2, 1, 1, 2), np.uint8)
    }


def test_digit_pairs_is_what_it_says():
    data = load("digit-pairs")
    assert data.x_train.shape == (6000, 12, 12, 1)
    assert data.x_test.shape == (2000, 12, 12, 1)
    assert data.x_train.dtype == np.uint8
    assert data.input_shape == (12, 12, 1)
    assert data.num_classes == 55
    assert set(data.y_train) == set(data.y_test) == set(range(55))
    standardised = standardise(data, data.x_train)
    assert standardised.dtype == np.float32
    assert standardised.mean() == pytest.approx(0, abs=1e-4)
    assert standardised.std() == pytest.approx(1, abs=1e-4)


def test_digit_pairs_is_the_same_every_time():
    first, second, longer = digit_pairs(100, 50), digit_pairs(100, 50), digit_pairs(101, 50)
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert len(longer.x_train) == 101


def test_no_test_digit_is_among_the_training_digits():
    data = load("digits")
    assert len(data.y_train) + len(data.y_test) == 1797
    train = {image.tobytes() for image in data.x_train}
    assert not train & {image.tobytes() for image in data.x_test}


def test_the_digits_lose_nothing_in_8_bits():
    from sklearn.datasets import load_digits

    data = load("digits")
    ours = np.concatenate([data.x_train, data.x_test])[..., 0].astype(float)
    assert sorted(x.tobytes() for x in ours) == sorted(x.tobytes() for x in load_digits().images)


def test_labels_number_the_unordered_pairs():
    pairs = [(a, b) for a in range(10) for b in range(a, 10)]
    low, high = np.array(pairs).T
    assert pair_labels(low, high).tolist() == list(range(55))


def test_npz_is_read_as_it_is_and_standardised_on_demand(tmp_path):
    data = load("npz", saved(tmp_path))
    assert data.name == "set"
    assert data.input_shape == (8, 8, 3)
    assert data.num_classes == 3
    assert data.y_test.tolist() == [2, 0]
    assert data.x_train.dtype == np.uint8
    np.testing.assert_array_equal(data.x_train, arrays()["x_train"])
    standardised = standardise(data, data.x_train)
    np.testing.assert_allclose(standardised.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(axis=(0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.uint16])
def test_other_numbers_become_float32_in_both_splits(tmp_path, dtype):
    data = load("npz", saved(tmp_path, x_train=arrays()["x_train"].astype(dtype)))
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    np.testing.assert_array_equal(data.x_train, arrays()["x_train"])


def test_sixteen_bits_are_scaled_as_those_of_image_files(tmp_path):
    deep = np.linspace(0, 65535, 6 * 64).astype(np.uint16).reshape(6, 8, 8)
    data = load("npz", saved(tmp_path, x_train=deep, x_test=deep[4:]))
    np.testing.assert_allclose(data.x_train[..., 0], deep / 257, rtol=1e-6)
    assert data.x_train.max() == 255


def test_grey_images_may_come_without_channels(tmp_path):
    x = np.zeros((6, 8, 8), np.float32)
    data = load("npz", saved(tmp_path, x_train=x, x_test=x[:2]))
    assert data.input_shape == (8, 8, 1)
    assert np.isfinite(standardise(data, data.x_train)).all()  # though nothing varies


def test_statistics_are_of_all_images_however_many():
    x = np.random.default_rng(0).integers(0, 256, (9001, 2, 3, 2), dtype=np.uint8)  # three parts
    mean, std = per_channel(x)
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, x.astype(float).std(axis=(0, 1, 2)), rtol=1e-6)
    mean, std = per_pixel(x)
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=0), rtol=1e-6)
    assert std.tolist() == [128, 128]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": None, "y_test": None}, r"missing: \['x_test', 'y_test'\]"),
        ({"x_train": np.zeros((6, 8))}, r"x_train must be images .* got float64 \(6, 8\)"),
        ({"x_train": np.full((6, 8, 8, 3), np.nan)}, "x_train must be finite, got NaN"),
        ({"x_train": np.array(["a"] * 6)}, "x_train must be images"),
        ({"y_train": np.zeros(5, int)}, r"y_train must be 6 whole numbers, got int64 \(5,\)"),
        ({"y_train": np.full(6, 0.5)}, "y_train must be 6 whole numbers, got others in float64"),
        ({"y_train": np.full(6, np.nan)}, "y_train must be 6 whole numbers, got others in float64"),
        ({"y_train": np.ones((6, 3))}, r"y_train of two dimensions must be one-hot, .* \(6, 3\)"),
        ({"y_test": np.array([-1, 0])}, r"y_test must hold classes that y_train has .*got -1"),
        ({"x_train": np.zeros((6, 3, 8, 9))}, "channels last.*numpy.moveaxis"),
        (
            {"x_train": np.ones((6, 8, 8, 3)), "x_test": np.full((2, 8, 8, 3), 200, np.uint8)},
            "one range of values, got float32 from 1 to 1 and uint8 from 200 to 200",
        ),
        (
            {"x_train": -np.ones((6, 8, 8, 3)), "x_test": np.ones((2, 8, 8, 3), np.uint8)},
            "one range of values, got float32 from -1 to -1",
        ),
        ({"y_test": np.array([3, 0])}, r"y_test must hold classes that y_train has \(0 to 2\)"),
        ({"x_test": np.zeros((2, 9, 9, 3))}, "images of one shape"),
        ({"x_test": np.zeros((0, 8, 8, 3)), "y_test": np.zeros(0, int)}, "x_test must be images"),
    ],
)
def test_a_wrong_npz_is_named_with_the_rule(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load("npz", saved(tmp_path, **change))


ONE_HOT = {"y_train": np.eye(4)[[0, 1, 2, 0, 1, 2]], "y_test": np.eye(4, dtype=np.uint8)[[2, 0]]}


@pytest.mark.parametrize(
    ("change", "train", "classes", "names", "note"),
    [
        ({"y_train": np.array([[0], [1], [2]] * 2)}, [0, 1, 2] * 2, 3, (), None),
        ({"y_train": np.array([0.0, 1.0, 2.0] * 2)}, [0, 1, 2] * 2, 3, (), None),
        (ONE_HOT, [0, 1, 2] * 2, 4, (), "one-hot: the column of the 1 is the class, 4 in all"),
        (
            {"y_train": np.array([1, 2, 4] * 2), "y_test": np.array([4, 1])},
            [0, 1, 2] * 2,
            3,
            ("1", "2", "4"),
            "3 different numbers from 1 to 4: they became classes 0 to 2",
        ),
        (
            {"y_train": np.array([-1, 1, 10**6] * 2), "y_test": np.array([10**6, -1])},
            [0, 1, 2] * 2,
            3,
            ("-1", "1", "1000000"),
            "3 different numbers from -1 to 1000000",
        ),
    ],
)
def test_labels_of_any_numbers_become_classes(tmp_path, change, train, classes, names, note):
    data = load("npz", saved(tmp_path, **change))
    assert data.y_train.tolist() == train
    assert data.y_test.tolist() == [2, 0]
    assert data.num_classes == classes
    assert data.class_names == names
    assert bool(data.notes) == bool(note)
    assert note is None or note in data.notes[0]


def test_an_archive_that_would_not_fit_into_memory_is_not_unpacked(tmp_path):
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 8, 8, 3)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(10**6))
    with pytest.raises(UserError, match=r"x_train.npy must be \d+ bytes, got 1000"):
        load("npz", tmp_path / "bomb.npz")


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
        ("mnist", None, f"unknown data set 'mnist': choose from {', '.join(NAMES)}"),
        ("npz", None, "needs its file: --data npz --path FILE.npz"),
        ("svhn", None, "needs its files: --data svhn --path FOLDER"),
        ("npz", "nowhere.npz", r"no file .*nowhere.npz"),
        ("digits", "nowhere.npz", "digits comes with scikit-learn"),
    ],
)
def test_a_wrong_name_or_path_says_what_to_do(name, path, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load(name, path and tmp_path / path)


def test_only_published_sets_are_downloaded(tmp_path):
    with pytest.raises(UserError, match="--download is for cifar10, cifar100, svhn, got npz"):
        load("npz", saved(tmp_path), download=True)


def test_validation_holds_out_the_last_tenth_of_the_training_images(tmp_path):
    data = load("npz", saved(tmp_path, **many(39)), validation=True)
    assert len(data.y_train) == 36
    assert data.x_train[-1].ravel().tolist() == [0, 35]
    assert data.x_test.reshape(3, 2).tolist() == [[0, 36], [0, 37], [0, 38]]
    assert data.y_test.tolist() == (np.arange(36, 39) % 3).tolist()
    np.testing.assert_allclose(data.mean, [0, np.mean(range(36))])  # held out: no part in it


def test_validation_holds_out_5000_at_most(tmp_path):
    data = load("npz", saved(tmp_path, **many(50_009)), validation=True)
    assert len(data.y_train) == 45_009
    assert len(data.y_test) == 5000
    assert data.x_test[0].ravel().tolist() == [45_009 >> 8, 45_009 & 255]


def test_validation_needs_ten_images(tmp_path):
    with pytest.raises(UserError, match="at least 10 training images, npz has 9"):
        load("npz", saved(tmp_path, **many(9)), validation=True)


def test_class_names_are_known_where_the_data_have_them():
    assert load("digits").class_names == tuple("0123456789")
    names = load("digit-pairs").class_names
    assert len(names) == 55
    labels = pair_labels(np.array([0, 1, 4, 9]), np.array([9, 1, 7, 9]))
    assert [names[label] for label in labels] == ["09", "11", "47", "99"]


def test_augmentation_is_chosen_by_name(tmp_path):
    path = saved(tmp_path)
    assert load("npz", path).augmentation == AUGMENTATIONS["none"]
    assert load("npz", path, augment="crop-flip").augmentation == AUGMENTATIONS["crop-flip"]
    with pytest.raises(UserError, match="unknown augmentation 'blurr': choose from none, crop-fl"):
        load("npz", path, augment="blurr")


def test_the_fingerprint_covers_all_that_training_sees(tmp_path):
    seen = [load("npz", saved(tmp_path)).fingerprint()]
    assert load("npz", saved(tmp_path)).fingerprint() == seen[0]
    for name, array in arrays().items():
        changed = array.copy()
        changed.flat[0] = 2 - changed.flat[0]
        seen.append(load("npz", saved(tmp_path, **{name: changed})).fingerprint())
    seen.append(load("npz", saved(tmp_path), augment="crop-flip").fingerprint())
    assert len(set(seen)) == len(seen)
