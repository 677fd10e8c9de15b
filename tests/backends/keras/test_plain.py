"""`balance_model` with weights of 1 beside the plain model: the same numbers, whatever Keras does.

Each kind of outputs, with each kind of loss that Keras adds of its own, on one replica and on two.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from support.balancers import keras_pairs
from support.balancers.keras_pairs import KINDS, OUTPUTS, SOME, X
from support.balancers.keras_tools import BACKEND


def assert_equal(plain, balanced):
    """All of plain's numbers; outputs that share a layer share a column of its logs."""
    shared = ("log head_loss", "log val_head_loss")
    for name, value in plain.items():
        if name not in shared:
            np.testing.assert_allclose(balanced[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert any(name.startswith("weight") for name in plain)


@pytest.mark.parametrize(("outputs", "extra"), KINDS)
def test_fit_evaluate_and_going_on_from_a_file_give_the_plain_models_numbers(
    outputs, extra, tmp_path
):
    both = keras_pairs.pair(outputs, extra, run_eagerly=True)
    assert_equal(*(keras_pairs.numbers(model, outputs) for model in both))
    for i, model in enumerate(both):
        model.save(tmp_path / f"{i}.keras")
    loaded = [keras.saving.load_model(tmp_path / f"{i}.keras") for i in range(2)]
    assert_equal(*(keras_pairs.one_step(model, outputs) for model in loaded))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch is eager")
@pytest.mark.parametrize(("outputs", "extra"), SOME)
def test_compiled_steps_give_the_plain_models_numbers(outputs, extra):
    both = keras_pairs.pair(outputs, extra)
    assert_equal(*(keras_pairs.numbers(model, outputs) for model in both))


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "found.npz"
    command = [sys.executable, keras_pairs.__file__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(path)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="replicas are TensorFlow's")
@pytest.mark.parametrize(("outputs", "extra"), SOME)
def test_two_replicas_give_the_plain_models_numbers(on_two_replicas, outputs, extra):
    plain, balanced = (
        {
            name.removeprefix(start): on_two_replicas[name]
            for name in on_two_replicas.files
            if name.startswith(start)
        }
        for start in (f"{outputs} {extra} plain ", f"{outputs} {extra} balanced ")
    )
    assert_equal(plain, balanced)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of JAX, about what Keras asks of it
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_trained_model_is_exported_as_the_plain_model_is(outputs, tmp_path):
    """The same artifact, or the same error where Keras cannot export such a model."""
    plain, balanced = (
        exported(model, outputs, tmp_path / f"{i}.pt2")
        for i, model in enumerate(keras_pairs.pair(outputs, "none", run_eagerly=True))
    )
    if isinstance(plain, type):
        assert balanced is plain
    else:
        for left, right in zip(plain, balanced, strict=True):
            np.testing.assert_array_equal(right, left)
    if BACKEND == "tensorflow" and outputs != "nested":
        assert not isinstance(plain, type)


def exported(model, outputs, path):
    """What the reloaded artifact answers, or the type of the error."""
    keras_pairs.one_step(model, outputs)
    try:
        form = "torch" if BACKEND == "torch" else "tf_saved_model"
        model.export(path, format=form, verbose=False)
    except (ImportError, ValueError) as error:
        return type(error)
    x = X[:1]  # PyTorch's artifact has a fixed size of batches
    if BACKEND == "torch":
        import torch

        found = torch.export.load(path).module()(torch.from_numpy(x))
        return [one.detach().numpy() for one in keras.tree.flatten(found)]
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return [one.numpy() for one in keras.tree.flatten(loaded.serve(x))]
