"""Files that were damaged or made up, and arguments of any kind: only clean errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")
pytest.importorskip("scipy")
Image = pytest.importorskip("PIL.Image")
from support.experiments import published_cifar, published_svhn
from support.experiments.command_line import call
from support.experiments.learners import DATA, SPEC, batches, ignore, make
from support.experiments.made_up import finished

from loss_balance.experiments.data import cifar, npz, pictures, preparation, svhn
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import trained
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.experiments.training.run_folder import (
    claim,
    note_environment,
    restore,
    save_epoch,
    write_arrays,
)
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.description.config import from_config, to_config

FEW = settings(max_examples=60)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**6, 10**30, -(10**30), float("nan"), float("inf"), -0.5, 1e308]),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """The content cut short, with some bytes changed, taken out or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "drop", "insert"])):
            case "cut":
                del found[at:]
            case "flip" if found:
                found[at] ^= draw(st.integers(1, 255))
            case "drop":
                del found[at : at + draw(st.integers(1, 64))]
            case _:
                found[at:at] = draw(st.binary(max_size=16))
    return bytes(found)


@st.composite
def changed(draw: Any, value: Any) -> Any:
    """JSON of which some part is another value, or gone."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return draw(values)
    key = draw(st.sampled_from(keys))
    inner = value[key]
    deeper = isinstance(inner, dict | list) and draw(st.integers(0, 3)) > 0
    copy = value.copy()
    if not deeper and isinstance(copy, dict) and draw(st.booleans()):
        del copy[key]
    else:
        copy[key] = draw(changed(inner)) if deeper else draw(values)
    return copy


def clean(read: Callable[[], Any]) -> None:
    """What is read is read, or refused in a line."""
    with contextlib.suppress(UserError, ValueError):
        read()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A file of every kind, by its name: (the file, what reads it)."""
    folder = tmp_path_factory.mktemp("files")
    arrays = {
        "x_train": np.zeros((4, 8, 8), np.uint8),
        "y_train": np.arange(4),
        "x_test": np.zeros((2, 8, 8), np.uint8),
        "y_test": np.arange(2),
    }
    np.savez(folder / "data.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    for name in ("a.png", "a.jpeg"):
        Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(folder / name)
    mat = published_svhn.written(folder) / "train_32x32.mat"
    x, y, *_ = published_cifar.images("cifar10")
    (folder / "batch").write_bytes(published_cifar.batch("cifar10", x, y, 2))
    made = learner(make("torch"), DATA)
    made.train_epoch(batches(2), 0.1, ignore)
    line = {"epoch": 1, "train_loss": [1.0] * 3, "loss_weight": made.loss_weights()}
    save_epoch(folder, line, made.state())
    write_arrays(folder / "statistics.npz", preparation.preparation_for(DATA).arrays())

    def restored(file):
        (folder / "previous.npz").unlink(missing_ok=True)
        restore(folder, made, mends=False)

    return {
        "data.npz": (folder / "data.npz", npz.read),
        "packed.npz": (folder / "packed.npz", npz.read),
        "weights": (folder / "data.npz", weights.load),
        "headers": (folder / "packed.npz", weights.shapes_in),
        "statistics": (
            folder / "statistics.npz",
            lambda file: preparation.read(file, DATA.input_shape),
        ),
        "checkpoint": (folder / "checkpoint.npz", restored),
        "png": (folder / "a.png", lambda file: pictures.read(file, "RGB")),
        "jpeg": (folder / "a.jpeg", lambda file: pictures.read(file, "RGB")),
        "mat": (mat, lambda file: svhn.read(file.parent, counts=published_svhn.COUNTS)),
        "pickle": (folder / "batch", lambda file: cifar.python(file.read_bytes(), "labels")),
        "binary": (folder / "batch", lambda file: cifar.binary(file.read_bytes(), 1)),
    }


KINDS = (
    *("data.npz", "packed.npz", "weights", "headers", "statistics", "checkpoint"),
    *("png", "jpeg", "mat", "pickle", "binary"),
)


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(kind, data, places):
    file, read = places[kind]
    whole = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged(whole)))
        clean(lambda: read(file))
    finally:
        file.write_bytes(whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs") / "run", "adaloss", epochs=2)


def noted(folder):
    note_environment(folder, {"python": "3"})


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", trained.read),
        ("result.json", trained.read),
        ("config.json", lambda folder: claim(folder, {"name": "another"})),
        ("environment.json", noted),
    ],
)
@FEW
@given(data=st.data())
def test_a_file_of_json_that_says_something_else_is_read_or_refused(name, read, data, run):
    file = run / name
    whole = file.read_text() if file.exists() else "[{}]"
    try:
        other = data.draw(changed(json.loads(whole)))
        file.write_text(json.dumps(other))
        clean(lambda: read(run))
    finally:
        file.write_text(whole)


@FEW
@given(data=st.data())
def test_a_line_of_metrics_that_says_something_else_is_read_or_refused(data, run):
    file = run / "metrics.jsonl"
    whole = file.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    try:
        other = data.draw(changed(lines))
        file.write_text("\n".join(map(json.dumps, other)))
        clean(lambda: read_metrics(run))
    finally:
        file.write_text(whole)


@FEW
@given(changed(to_config(SPEC)))
def test_a_network_that_is_described_otherwise_is_built_or_refused(config):
    clean(lambda: from_config(config).costs())


words = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["-1", "0", "1e400", "nan", "--", "-", "adaloss", "resann-1-4", "7,", "=", "a=b"]
    ),
)
OPTIONS = (
    *("--network", "--epochs", "--learning-rate", "--batch-size", "--gamma", "--decay", "--set"),
    *("--sweep", "--seed", "--seeds", "--jobs", "--devices", "--strategy", "--batch-norm"),
    *("--device", "--precision", "--scheme", "--schemes", "--log", "--augment", "--guidance"),
    *("--evaluate-every", "--framework", "--config", "--cluster", "--what"),
)


@pytest.mark.parametrize("command", ["train", "compare", "eann", "paper"])
@FEW
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), words), max_size=3))
def test_arguments_of_any_kind_are_refused_in_a_line(command, given):
    figure = ["fig2a"] if command == "paper" else []
    arguments = [word for pair in given for word in pair]
    nothing = "--data", "npz", "--path", "there-is-no-such-file.npz", "--out", "never-written"
    status, _, complaint = call(command, *figure, *arguments, *nothing)
    assert status == 2
    assert len(complaint.splitlines()) == 1
    assert not Path("never-written").exists()
