"""`tf.train.Checkpoint` of the Keras layer: whose it is, and those of version 0.1."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.balancers.contract import SCHEMES, STEPS

from loss_balance import AdaLoss, DynamicWeightAverage, LogLoss, Static

tf = pytest.importorskip("tensorflow")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
from support.balancers.keras_tools import NAMES, of_another, tensors

from loss_balance.backends.tensorflow import Balancer

OLD = {"average": [4.0, 1.0, 2.0], "weights": [0.3, 1.0, 0.5], "step": 7, "skipped": [0, 2, 0]}


def trained(scheme=3, **options):
    balance = Balancer(scheme, **options)
    for losses in STEPS:
        balance(tensors(losses))
    return balance


def saved(kept, folder):
    return tf.train.Checkpoint(balance=kept).save(folder / "checkpoint")


def restore(balance, path):
    return tf.train.Checkpoint(balance=balance).restore(path)


def before(folder, fields=OLD):
    """A checkpoint as version 0.1 wrote it: variables, and nothing of whose they are."""
    balance = tf.Module()
    for name, value in fields.items():
        value = np.array(value)
        kind = np.float32 if value.dtype.kind == "f" else np.int64
        setattr(balance, f"state_{name}", tf.Variable(value.astype(kind)))
    return saved(balance, folder)


def assert_same(left, right):
    for name, value in left.export_state().items():
        np.testing.assert_array_equal(right.export_state()[name], value, err_msg=name)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_checkpoint_holds_the_state(tmp_path, scheme):
    kept, fresh = trained(scheme), Balancer(scheme)
    status = restore(fresh, saved(kept, tmp_path))
    status.assert_consumed()
    status.assert_existing_objects_matched()
    assert_same(kept, fresh)


def test_a_layer_made_after_the_restoration_gets_its_state_too(tmp_path):
    kept = trained(names=NAMES)
    root = tf.train.Checkpoint()
    status = root.restore(saved(kept, tmp_path))
    root.balance = Balancer(3, names=["c", "a", "b"])
    status.assert_consumed()
    ours, theirs = root.balance.export_state(), kept.export_state()
    np.testing.assert_array_equal(ours["average"], theirs["average"][[2, 0, 1]])


def test_losses_are_matched_by_name_each_time(tmp_path):
    kept, other = trained(names=NAMES), Balancer(3, names=["c", "a", "b"])
    path = saved(kept, tmp_path)
    for _ in range(2):
        restore(other, path).assert_consumed()
        ours, theirs = other.export_state(), kept.export_state()
        assert len(set(theirs["average"])) == 3
        for name in ("average", "weights"):
            np.testing.assert_array_equal(ours[name], theirs[name][[2, 0, 1]])
    own = saved(other, tmp_path / "other")
    again = Balancer(3, names=["c", "a", "b"])
    restore(again, own)
    assert_same(again, other)


@of_another
def test_a_checkpoint_of_another_is_refused_by_what_differs_and_changes_nothing(
    tmp_path, scheme, names, message
):
    path = saved(trained(names=NAMES), tmp_path)
    other, untouched = Balancer(scheme, names=names), Balancer(scheme, names=names)
    with pytest.raises(ValueError, match=message):
        restore(other, path)
    assert_same(other, untouched)


def test_other_hyperparameters_go_on_all_the_same_if_told_so(tmp_path):
    kept, other = trained(), Balancer(AdaLoss(3, gamma=0.5))
    other.strict_loading = False
    restore(other, saved(kept, tmp_path)).assert_consumed()
    np.testing.assert_array_equal(other.export_state()["average"], kept.export_state()["average"])


def test_another_class_of_scheme_takes_what_both_have_if_told_so(tmp_path):
    kept, other = trained(), Balancer(LogLoss(3, decay=0.9))
    other.strict_loading = False
    restore(other, saved(kept, tmp_path))
    ours, theirs = other.export_state(), kept.export_state()
    np.testing.assert_array_equal(ours["average"], theirs["average"])
    assert ours["weights"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_checkpoint_in_the_middle_of_an_accumulation_goes_on(tmp_path, compiled):
    kept, fresh = trained(), Balancer(3)
    kept(tensors([9.0, 9.0, 9.0]), update=False)
    restore(fresh, saved(kept, tmp_path))
    for one in (kept, fresh):
        (tf.function(one) if compiled else one)(tensors([1.0, 2.0, 5.0]))
    for name, value in kept.export_state().items():
        np.testing.assert_allclose(fresh.export_state()[name], value, rtol=1e-6, err_msg=name)
    assert not fresh.export_state()["pending"].any()


def test_the_count_of_calls_goes_on(tmp_path):
    kept, fresh = Balancer(3, accumulate=3), Balancer(3, accumulate=3)
    for losses in STEPS[:2]:
        kept(tensors(losses))
    restore(fresh, saved(kept, tmp_path))
    for one in (kept, fresh):
        one(tensors(STEPS[2]))
    assert fresh.export_state()["step"] == 1
    assert_same(kept, fresh)


def test_values_that_cannot_be_are_found_at_the_next_call(tmp_path):
    broken, balance = trained(), trained()
    broken.state_average.assign([float("nan"), 1.0, 1.0])
    restore(balance, saved(broken, tmp_path))
    with pytest.raises(ValueError, match="state must be possible, got average"):
        balance(tensors([1.0, 1.0, 1.0]))


def test_checkpoints_of_version_0_1_are_read(tmp_path):
    balance = Balancer(3)
    restore(balance, before(tmp_path)).expect_partial()
    state = balance.export_state()
    for name, value in OLD.items():
        np.testing.assert_array_equal(state[name], np.array(value, state[name].dtype))
    balance(tensors([4.0, 1.0, 2.0]))
    assert balance.export_state()["step"] == 8


def test_checkpoints_of_version_0_1_are_read_with_the_schemes_own_fields(tmp_path):
    more = {"count": [1.0, 2.0, 3.0], "previous": [4.0, 5.0, -1.0]}
    balance = Balancer(DynamicWeightAverage(3, window=5))
    restore(balance, before(tmp_path, OLD | more)).expect_partial()
    state = balance.export_state()
    assert (state["count"].tolist(), state["previous"].tolist()) == tuple(more.values())


@pytest.mark.parametrize("old", [False, True], ids=["now", "0.1"])
def test_a_checkpoint_leaves_fixed_weights_alone(tmp_path, old):
    kept, fives = trained(Static((1.0, 1.0, 1.0))), Balancer(Static((5.0, 1.0, 1.0)))
    if old:
        restore(fives, before(tmp_path)).expect_partial()
    else:
        with pytest.raises(ValueError, match="weights was"):
            restore(fives, saved(kept, tmp_path))
        fives.strict_loading = False
        restore(fives, saved(kept, tmp_path))
    assert fives.export_state()["weights"].tolist() == [5.0, 1.0, 1.0]
    assert float(fives(tensors([1.0, 1.0, 1.0]))) == 7.0


def test_a_checkpoint_of_a_model_holds_the_balancer_inside(tmp_path):
    import keras

    def model():
        inputs = keras.Input((1,))
        made = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        made.balance = Balancer(3, names=NAMES)
        return made

    kept, fresh = model(), model()
    kept.balance(tensors(dict(zip(NAMES, STEPS[0], strict=True))))
    path = tf.train.Checkpoint(model=kept).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=fresh).restore(path).assert_consumed()
    assert_same(kept.balance, fresh.balance)
    assert fresh.balance.export_state()["step"] == 1
