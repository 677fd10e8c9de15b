"""Files of weights of the Keras layer: whose they are, and those of version 0.1."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from loss_balance import AdaLoss, DynamicWeightAverage, Static

keras = pytest.importorskip("keras")
from support.balancers.keras_tools import NAMES, of_another, tensors

from loss_balance.backends.tensorflow import Balancer


class Shell(keras.layers.Layer):
    """Something that holds a balancer, under the path that version 0.1 had it."""

    def __init__(self, balancer):
        super().__init__()
        self.balancer = balancer

    def build(self, shape):
        self.built = True

    def call(self, x):
        return x


class Before(keras.layers.Layer):
    """The state as version 0.1 kept it: variables by number, nothing of whose they are."""

    def __init__(self, **fields):
        super().__init__()
        for name, value in fields.items():
            value = np.array(value)
            variable = self.add_weight(
                shape=value.shape,
                dtype="float32" if value.dtype.kind == "f" else "int",
                trainable=False,
                name=name,
            )
            variable.assign(value)
            setattr(self, f"state_{name}", variable)
        self.built = True


OLD = {"average": [4.0, 1.0, 2.0], "weights": [0.3, 1.0, 0.5], "step": 7, "skipped": [0, 2, 0]}


def model_of(balancer):
    inputs = keras.Input((1,))
    return keras.Model(inputs, Shell(balancer)(inputs))


def trained(scheme=3, **options):
    balancer = Balancer(scheme, **options)
    for losses in ([4.0, 1.0, 0.5], [3.0, 2.0, 0.25]):
        balancer(tensors(losses))
    return balancer


def written(balancer, folder, name="kept.weights.h5", **options):
    model_of(balancer).save_weights(folder / name, **options)
    return folder / name


def assert_same(left, right):
    for name, value in left.export_state().items():
        np.testing.assert_array_equal(right.export_state()[name], value, err_msg=name)


def test_losses_are_matched_by_name(tmp_path):
    kept, other = trained(names=NAMES), Balancer(3, names=["c", "a", "b"])
    model_of(other).load_weights(written(kept, tmp_path))
    ours, theirs = other.export_state(), kept.export_state()
    assert len(set(theirs["average"])) == 3
    for name in ("average", "weights"):
        np.testing.assert_array_equal(ours[name], theirs[name][[2, 0, 1]])


@of_another
def test_a_file_of_another_is_refused_by_what_differs_and_changes_nothing(
    tmp_path, scheme, names, message
):
    path = written(trained(names=NAMES), tmp_path)
    other, untouched = Balancer(scheme, names=names), Balancer(scheme, names=names)
    with pytest.raises(ValueError, match=message):
        model_of(other).load_weights(path)
    assert_same(other, untouched)


def test_other_hyperparameters_go_on_all_the_same_if_told_so(tmp_path):
    kept, other = trained(), Balancer(AdaLoss(3, gamma=0.5))
    other.strict_loading = False
    model_of(other).load_weights(written(kept, tmp_path))
    np.testing.assert_array_equal(other.export_state()["average"], kept.export_state()["average"])
    other(tensors([3.0, 2.0, 0.25]))
    assert other.export_state()["weights"].min() > 0.5


def test_weights_in_several_files_are_read_together(tmp_path):
    scheme = DynamicWeightAverage(3, window=1)
    kept, other = trained(scheme), Balancer(scheme)
    path = written(kept, tmp_path, "kept.weights.json", max_shard_size=1)
    model_of(other).load_weights(path)
    assert_same(kept, other)


def test_a_file_in_the_middle_of_an_accumulation_goes_on(tmp_path):
    kept, other = Balancer(3, accumulate=3), Balancer(3, accumulate=3)
    for losses in ([4.0, 1.0, 0.5], [3.0, 2.0, 0.25]):
        kept(tensors(losses))
    model_of(other).load_weights(written(kept, tmp_path))
    for balancer in (kept, other):
        balancer(tensors([2.0, 3.0, 0.75]))
    assert_same(kept, other)
    assert other.export_state()["average"].tolist() == [3.0, 2.0, 0.5]


def test_saving_warns_of_nothing_so_that_a_file_is_whole(tmp_path):
    balancer = trained()
    for _ in range(60):
        balancer(tensors([1.0, float("nan"), 1.0]))
    written(balancer, tmp_path)  # a warning would be an error here
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="losses 1: NaN"):
            balancer.export_state()


def test_files_of_version_0_1_are_read(tmp_path):
    path = written(Before(**OLD), tmp_path)
    balancer = Balancer(3)
    model_of(balancer).load_weights(path)
    state = balancer.export_state()
    for name, value in OLD.items():
        np.testing.assert_array_equal(state[name], np.array(value, state[name].dtype))
    assert not state["recent"].any()
    assert not state["pending"].any()
    balancer(tensors([4.0, 1.0, 2.0]))
    assert balancer.export_state()["step"] == 8


def test_files_of_version_0_1_are_read_with_the_schemes_own_fields(tmp_path):
    more = {"count": [1.0, 2.0, 3.0], "previous": [4.0, 5.0, -1.0]}
    balancer = Balancer(DynamicWeightAverage(3, window=5))
    model_of(balancer).load_weights(written(Before(**OLD, **more), tmp_path))
    state = balancer.export_state()
    assert (state["count"].tolist(), state["previous"].tolist()) == tuple(more.values())


def test_a_file_of_version_0_1_leaves_fixed_weights_alone(tmp_path):
    balancer = Balancer(Static((5.0, 1.0, 1.0)))
    model_of(balancer).load_weights(written(Before(**OLD), tmp_path))
    assert balancer.export_state()["weights"].tolist() == [5.0, 1.0, 1.0]
    assert balancer.export_state()["step"] == 7


def test_a_file_of_version_0_1_whose_values_cannot_be_is_refused(tmp_path):
    balancer = Balancer(3)
    path = written(Before(**OLD | {"weights": [-5e15, 1.0, 1.0]}), tmp_path)
    with pytest.raises(ValueError, match="weights must be from 0 to 1"):
        model_of(balancer).load_weights(path)
    assert_same(balancer, Balancer(3))
