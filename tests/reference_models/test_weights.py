from __future__ import annotations

import math

import numpy as np
import pytest
from support.networks.contract import assert_same, random_weights

from loss_balance.experiments.verification.small_networks import SMALL, SPARSE
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights


def test_first_weights_have_the_specs_names_and_shapes_in_float32():
    drawn = weights.initialise(SPARSE, 0)
    expected = SPARSE.parameters() | SPARSE.statistics()
    assert {name: array.shape for name, array in drawn.items()} == expected
    assert {array.dtype for array in drawn.values()} == {np.dtype(np.float32)}


def test_kernels_are_normal_with_variance_two_over_fan_in():
    for name, array in weights.initialise(families.resann(1, 32, 100), 0).items():
        if name.endswith(".kernel"):
            fan_in = math.prod(array.shape[:-1])
            normal = array.astype(np.float64) / math.sqrt(2.0 / fan_in)
            error = 5.0 / math.sqrt(array.size)  # five standard errors of the mean
            assert abs(normal.mean()) < error, name
            assert abs(normal.var() - 1.0) < error * math.sqrt(2.0), name
            assert abs((normal**4).mean() - 3.0) < error * math.sqrt(96.0), name


def test_the_rest_starts_neutral():
    neutral = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
    fields = set()
    for name, array in weights.initialise(SMALL, 0).items():
        field = name.split(".")[-1]
        fields.add(field)
        if field != "kernel":
            assert (array == neutral[field]).all(), name
    assert fields == {"kernel", *neutral}


def test_the_seed_and_the_name_decide_a_kernel():
    first, again, other = (weights.initialise(SPARSE, seed) for seed in (0, 0, 1))
    assert_same(first, again)
    kernels = [name for name in first if name.endswith(".kernel")]
    assert not any(np.array_equal(first[name], other[name]) for name in kernels)
    assert not np.array_equal(first["unit0.conv1.kernel"], first["unit0.conv2.kernel"])


@pytest.mark.parametrize("exit_index", range(len(SPARSE.exits)))
def test_a_cut_network_starts_from_the_same_weights(exit_index):
    whole = weights.initialise(SPARSE, 7)
    cut = weights.initialise(SPARSE.single_exit(exit_index), 7)
    assert_same(cut, {name: whole[name] for name in cut})


def test_weights_that_fit_pass():
    weights.check(SPARSE, random_weights(SPARSE))


def test_all_that_does_not_fit_is_named_in_one_error():
    wrong = random_weights(SMALL)
    del wrong["unit0.norm1.mean"], wrong["exit5.linear.bias"]
    wrong["unit9.conv1.kernel"] = np.zeros(3)
    wrong["stem.conv.kernel"] = wrong["stem.conv.kernel"].transpose(3, 2, 0, 1)
    with pytest.raises(ValueError, match="do not fit resann-2-4") as caught:
        weights.check(SMALL, wrong)
    for problem in (
        "missing unit0.norm1.mean",
        "missing exit5.linear.bias",
        "unknown unit9.conv1.kernel",
        "stem.conv.kernel has shape (4, 3, 3, 3), expected (3, 3, 3, 4)",
    ):
        assert problem in str(caught.value)
    assert str(caught.value).count(";") == 3


@pytest.mark.parametrize("name", ["net.npz", "no suffix"])
def test_a_file_holds_the_weights_exactly(tmp_path, name):
    given = random_weights(SMALL)
    weights.save(tmp_path / name, given)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert_same(weights.load(tmp_path / name), given)


def test_objects_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"arrays of numbers.*\['bad'\]"):
        weights.save(tmp_path / "net.npz", {"good": np.zeros(2), "bad": np.array([{}])})
    assert not list(tmp_path.iterdir())


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "net.npz", bad=np.array([{}]))
    with pytest.raises(ValueError, match=r"net\.npz is not a file of plain arrays"):
        weights.load(tmp_path / "net.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip file", None])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "net.npz"
    if content is None:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        content = path.with_suffix(".npy").read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be an \.npz file, .*net\.npz"):
        weights.load(path)


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "net.npz"
    weights.save(path, random_weights(SMALL))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"net\.npz is not one or is cut short"):
        weights.load(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "net.npz"
    weights.save(path, random_weights(SMALL))
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(255 - byte for byte in content[300:340])
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"net\.npz is not a file of plain arrays"):
        weights.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        weights.load(tmp_path / "absent.npz")


def test_shapes_are_read_and_limits_kept_before_anything_is_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "w.npz"
    np.savez_compressed(file, a=np.zeros((1000, 1000), np.float32), b=np.float64(1))
    monkeypatch.setattr(np, "load", None)  # which would unpack
    assert weights.shapes_in(file) == {"a": (1000, 1000), "b": ()}
    with pytest.raises(ValueError, match=r"must be at most 100000 bytes, got 4000\d\d\d"):
        weights.load(file, limit=100_000)
