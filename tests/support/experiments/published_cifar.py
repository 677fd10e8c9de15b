"""Tiny CIFAR files in every published form, built from the home page's description."""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import replace
from functools import partial

import numpy as np

from loss_balance.experiments.data import cifar

SETS = {
    name: replace(published, train_images=10, test_images=3)
    for name, published in {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}.items()
}
CLASSES = {"cifar10": 10, "cifar100": 100}
TRAIN = {"cifar10": 5, "cifar100": 1}  # files
FORMS = ("binary", "python", "python 2")


def images(name):
    """Train and test, (N, 32, 32, 3), and labels, from a generator of their own."""
    rng = np.random.default_rng(5)
    x = [rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (10, 3)]
    return x[0], rng.integers(CLASSES[name], size=10), x[1], rng.integers(CLASSES[name], size=3)


def record(name, image, label):
    """As the home page describes the binary version."""
    planes = b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return (b"" if name == "cifar10" else b"\x13") + bytes([label]) + planes


def batch(name, x, y, protocol):
    """As it describes the python version."""
    rows = np.stack([np.concatenate([i[:, :, c].ravel() for c in range(3)]) for i in x])
    key = b"labels" if name == "cifar10" else b"fine_labels"
    content = {b"batch_label": b"of tests", b"data": rows, key: [int(label) for label in y]}
    pickled = pickle.dumps(content, protocol=protocol)
    return pickled.replace(b"numpy._core", b"numpy.core") if protocol == 2 else pickled


def files(name, form):
    """Name and content of each published file, and of one that is there beside them."""
    x_train, y_train, x_test, y_test = images(name)
    if form == "binary":
        folder = "cifar-10-batches-bin" if name == "cifar10" else "cifar-100-binary"
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if name == "cifar10" else ["train.bin"]
        names.append("test_batch.bin" if name == "cifar10" else "test.bin")

        def content(x, y):
            return b"".join(record(name, *pair) for pair in zip(x, y, strict=True))

    else:
        folder = "cifar-10-batches-py" if name == "cifar10" else "cifar-100-python"
        names = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
        names.append("test_batch" if name == "cifar10" else "test")
        content = partial(batch, name, protocol=2 if form == "python 2" else 5)

    size = 10 // TRAIN[name]
    parts = [(x_train[i : i + size], y_train[i : i + size]) for i in range(0, 10, size)]
    pairs = zip(names, [*parts, (x_test, y_test)], strict=True)
    written = {f"{folder}/{file}": content(x, y) for file, (x, y) in pairs}
    return {**written, f"{folder}/readme.html": b"<p>", f"{folder}/batches.meta": b"any"}


def unpacked(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def packed(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def assert_is(name, splits):
    x_train, y_train, x_test, y_test = images(name)
    np.testing.assert_array_equal(splits.x_train, x_train)
    np.testing.assert_array_equal(splits.x_test, x_test)
    assert splits.y_train.tolist() == y_train.tolist()
    assert splits.y_test.tolist() == y_test.tolist()
    assert splits.x_train.dtype == np.uint8
    assert splits.y_train.dtype == np.int64
    assert splits.num_classes == CLASSES[name]
