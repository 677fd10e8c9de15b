"""CIFAR as published, in all its forms, and whatever else may be found in its place."""

from __future__ import annotations

import gzip
import pickle
import tarfile

import numpy as np
import pytest
from support.experiments.published_cifar import (
    FORMS,
    SETS,
    assert_is,
    batch,
    files,
    images,
    packed,
    record,
    unpacked,
)

from loss_balance.experiments.data import cifar, sources
from loss_balance.experiments.data.augment import AUGMENTATIONS
from loss_balance.experiments.data.unpickling import unpickle
from loss_balance.experiments.errors import UserError


def read(name, path, **options):
    return cifar.read(SETS[name], path, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SETS)
def test_folder_and_archive_give_the_published_images(tmp_path, name, form):
    contents = files(name, form)
    root = unpacked(tmp_path / "folder", contents)
    inner = root / next(iter(contents)).partition("/")[0]
    (tmp_path / "packed").mkdir()
    version = "binary" if form == "binary" else "python"
    number = "10" if name == "cifar10" else "100"
    archive = packed(tmp_path / "packed" / f"cifar-{number}-{version}.tar.gz", contents)
    renamed = packed(tmp_path / "mine.tgz", contents)
    for place in (root, inner, archive, archive.parent, renamed):
        assert_is(name, read(name, place))


def test_an_archive_cut_short_is_named(tmp_path):
    archive = packed(tmp_path / "cifar-10-binary.tar.gz", files("cifar10", "binary"))
    content = archive.read_bytes()
    for share in (0, 0.001, 0.5, 0.99):
        archive.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz must be a whole .tar.gz arc"):
            read("cifar10", archive)


def test_a_damaged_archive_is_named(tmp_path):
    archive = packed(tmp_path / "cifar-10-binary.tar.gz", files("cifar10", "binary"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"must be"):
        read("cifar10", archive)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_short_is_named(tmp_path, name, form):
    contents = files(name, form)
    file = next(iter(contents))
    for size in (0, 1, len(contents[file]) - 1):
        root = unpacked(tmp_path, {**contents, file: contents[file][:size]})
        with pytest.raises(UserError, match=f"{file.rpartition('/')[2]} in .* must hold|be a whol"):
            read(name, root)


def test_a_file_cut_short_between_images_is_noticed(tmp_path):
    contents = files("cifar10", "binary")
    file = "cifar-10-batches-bin/data_batch_2.bin"
    root = unpacked(tmp_path, {**contents, file: contents[file][:3073]})
    with pytest.raises(UserError, match=r"data_batch_2.bin, .* must hold 10 images, got 9"):
        read("cifar10", root)


def test_missing_files_are_named(tmp_path):
    contents = files("cifar10", "binary")
    contents.pop("cifar-10-batches-bin/data_batch_3.bin")
    with pytest.raises(UserError, match=r"missing: \['data_batch_3.bin'\]"):
        read("cifar10", unpacked(tmp_path / "folder", contents))
    with pytest.raises(UserError, match=r"missing: \['data_batch_3.bin'\]"):
        read("cifar10", packed(tmp_path / "cifar.tar.gz", contents))


@pytest.mark.parametrize("place", ["", "nowhere", "foreign.tar.gz", "cifar100"])
def test_where_nothing_is_found_the_archives_are_named(tmp_path, place):
    packed(tmp_path / "foreign.tar.gz", {"a/b.txt": b"text"})
    unpacked(tmp_path / "cifar100", files("cifar100", "binary"))
    rule = r"cifar10 needs cifar-10-binary.tar.gz or cifar-10-python.tar.gz, .* found neither at "
    with pytest.raises(UserError, match=rf"{rule}.*{place}: --download fetches it there"):
        read("cifar10", tmp_path / place)


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_another_set_are_refused(tmp_path, form):
    contents = files("cifar10", form)
    file = next(iter(contents))
    x, _, _, _ = images("cifar10")
    if form == "binary":
        contents[file] = record("cifar10", x[0], 10) + record("cifar10", x[1], 0)
    else:
        contents[file] = batch("cifar10", x[:2], [10, 0], 2)
    with pytest.raises(UserError, match="must hold classes from 0 to 9, got 0 to 10"):
        read("cifar10", unpacked(tmp_path, contents))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dict, got a list"),
        ({"data": 1}, r"must have the keys data and labels, got \['data'\]"),
        (
            {"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]},
            r"uint8 \(N, 3072\), got uint8",
        ),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "got float64"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "must hold 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": ["a", "b"]}, "must hold 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [[1], [2, 3]]}, "must hold an array"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content, message):
    contents = files("cifar10", "python")
    contents["cifar-10-batches-py/data_batch_1"] = pickle.dumps(content)
    with pytest.raises(UserError, match=f"data_batch_1 in .*{message}"):
        read("cifar10", unpacked(tmp_path, contents))


class Attack:
    """Unpickled anywhere else, it leaves a file behind."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, protocol):
    target = tmp_path / "it ran"
    contents = files("cifar10", "python")
    evil = pickle.dumps({"data": Attack(target)}, protocol=protocol)
    contents["cifar-10-batches-py/test_batch"] = evil
    with pytest.raises(
        UserError, match=r"test_batch in .* arrays and plain containers, got: .*open"
    ):
        read("cifar10", unpacked(tmp_path / "set", contents))
    assert not target.exists()
    pickle.loads(evil)["data"].close()  # elsewhere it does
    assert target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
        pickle.dumps(np.array([{}])),  # an array of objects
        pickle.dumps(np.zeros(2, "u1,O")),
        pickle.dumps(np.array(["text"]), protocol=2),
        b"\x82\x01.",  # an extension code
        b"Pid\n.",  # a persistent id
    ],
)
def test_only_arrays_and_plain_containers_are_unpickled(content):
    with pytest.raises(ValueError, match="be a whole pickle of arrays and plain containers"):
        unpickle(content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_are_unpickled(protocol):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    big_endian = np.arange(6, dtype=">i4").reshape(2, 3, order="F")
    content = pickle.dumps([{"a": array, "b": (1, 2.5, None, True)}, big_endian], protocol)
    for written in (content, content.replace(b"numpy._core", b"numpy.core")):
        if protocol >= 4 and written != content:
            continue  # names have their length before them
        first, second = unpickle(written)
        np.testing.assert_array_equal(first["a"], array)
        assert first["b"] == (1, 2.5, None, True)
        np.testing.assert_array_equal(second, big_endian)


def test_load_reads_the_published_numbers_and_augments_as_the_paper(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    labels = np.arange(50_000, dtype=np.uint8) % 100
    for name, count in (("train.bin", 50_000), ("test.bin", 10_000)):
        records = np.zeros((count, 3074), np.uint8)
        records[:, 1] = labels[:count]
        records[:, 2] = 128
        (folder / name).write_bytes(records.tobytes())
    loaded = sources.load("cifar100", tmp_path, validation=True)
    assert len(loaded.y_train) == 45_000
    assert len(loaded.y_test) == 5_000
    assert loaded.num_classes == 100
    assert loaded.augmentation == AUGMENTATIONS["crop-flip"]
    assert loaded.mean.shape == (32, 32, 3)
    assert loaded.mean[0, 0].tolist() == [128, 0, 0]
    assert loaded.std.tolist() == [128, 128, 128]


@pytest.mark.parametrize("target", ["/etc/passwd", "nothing"])
def test_a_link_in_an_archive_is_refused(tmp_path, target):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
    with pytest.raises(UserError, match=r"must hold plain files .* got no plain file at cifar"):
        read("cifar10", tmp_path)


def test_a_member_beyond_all_sizes_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 10**10
        archive.fileobj.write(member.tobuf())
    with pytest.raises(UserError, match="of at most 200000000 bytes, got 10000000000 bytes"):
        read("cifar10", tmp_path)


def test_a_gzip_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(b"text" * 1000))
    with pytest.raises(UserError, match=r"must be a whole .tar.gz archive, got: "):
        read("cifar10", tmp_path)
