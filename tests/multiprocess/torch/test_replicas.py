"""Two processes: what one of them meets is decided alike on both, and neither waits for ever."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
from support.balancers.replicas import outcomes

from loss_balance.experiments.verification.oracle import Oracle

NOTHING_PENDING = [[0.0, 0.0], [0.0, 0.0]]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What every case returned on either rank, by its name."""
    return outcomes("support.balancers.replica_cases", tmp_path_factory.mktemp("replicas"))


def state_after(*steps):
    """What both ranks should hold after these mean losses."""
    oracle = Oracle(2, decay=0.5)
    for losses in steps:
        weights = oracle.update(losses)
    return {
        "average": pytest.approx(oracle.average, rel=1e-6),
        "weights": pytest.approx(weights, rel=1e-6),
        "step": len(steps),
        "skipped": oracle.skipped,
        "pending": NOTHING_PENDING,
    }


def only(state, *names):
    return {name: state[name] for name in names or ("average", "weights", "step", "skipped")}


def assert_state(state, expected):
    assert only(state, *expected) == expected


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        ("none_on_one_rank", [[4.0, 1.0]]),
        ("none_on_all_ranks", [[3.0, 1.0], [None, None], [3.0, 1.0]]),
        ("empty_mask_on_one_rank", [[4.0, 1.0]]),
        ("negative_at_first_on_one_rank", [[3.0, 1.0]]),
        ("negative_later_on_one_rank", [[3.0, 1.0], [-1.0, 1.0]]),
        ("nan_on_one_rank", [[3.0, 1.0], [float("nan"), 1.0]]),
        ("evaluated_on_one_rank", [[3.0, 1.0], [3.0, 1.0]]),
        ("accumulated_with_no_sync", [[3.0, 1.0], [4.0, 1.0], [5.0, 1.0]]),
        ("accumulated_while_ddp_broadcasts_buffers", [[3.0, 1.0], [4.0, 1.0], [5.0, 1.0]]),
        ("accumulated_with_unequal_presence", [[3.0, 5.0], [4.0, 5.0], [5.0, 5.0]]),
        ("compiled_and_accumulated", [[3.0, 1.0], [4.0, 1.0], [5.0, 1.0]]),
    ],
)
def test_both_ranks_hold_the_state_of_the_mean_losses(found, case, steps):
    for state in found[case]:
        assert_state(state, state_after(*steps))


def test_a_rank_without_losses_has_a_total_of_zero_and_can_go_backward(found):
    assert [state["total"] for state in found["none_on_one_rank"]] == [0.0, pytest.approx(2.15)]


def test_a_step_without_any_loss_on_any_rank_has_a_total_of_zero(found):
    assert [state["totals"][1] for state in found["none_on_all_ranks"]] == [0.0, 0.0]


def test_a_negative_first_loss_on_one_rank_is_refused_on_both_and_changes_nothing(found):
    for state in found["negative_at_first_on_one_rank"]:
        assert "losses must not be negative" in state["message"]
        assert state["same"]


def test_replicas_that_start_unequal_are_equal_at_the_first_update(found):
    """The first one's state is what counts, before the first step and in the middle, exactly."""
    first, second = found["loaded_on_one_rank"]
    assert first == second
    for state in first:
        assert state["step"] == 2**24 + 2
        assert_state(state | {"step": 2}, state_after([2.0, 1.0], [3.0, 1.0]))


def test_what_one_rank_alone_resets_makes_none_of_them_give_up(found):
    for state in found["reset_on_one_rank_and_negative"]:
        assert state["skipped"] == [1, 0]
        assert state["step"] == 2


def test_a_state_that_cannot_be_is_refused_on_both(found):
    first, second = found["impossible_on_the_first_rank"]
    assert first == second
    assert "average must be finite" in first


@pytest.mark.parametrize("way", ["with_no_sync", "while_ddp_broadcasts_buffers"])
def test_there_is_one_all_reduce_per_step_of_the_optimiser(found, way):
    for state in found[f"accumulated_{way}"]:
        assert state["reduced"] == [1, 2, 3]


def test_a_process_outside_the_group_is_told_so_and_the_others_go_on(found):
    outside, inside = found["outside_its_group"]
    assert "process_group must have this process in it" in outside
    assert_state(inside, state_after([4.0, 1.0]))


def test_a_mesh_of_one_dimension_is_a_group(found):
    for rank, state in enumerate(found["meshes"]):
        assert_state(state["single"], state_after([2.0 + 2.0 * rank, 1.0]))
        assert_state(state["whole"], state_after([3.0, 1.0]))
        assert_state(state["part"], state_after([3.0, 1.0]))
        assert "must have one dimension, got 2" in state["message"]


@pytest.mark.parametrize("way", ["deepcopy", "averaged", "pickle"])
def test_a_copy_belongs_to_the_same_group(found, way):
    for state in found["copies_with_a_group"]:
        assert_state(state[way], state_after([3.0, 1.0]))


def test_a_group_that_is_not_all_processes_has_to_be_set_after_unpickling(found):
    for rank, state in enumerate(found["copies_with_a_group"]):
        assert (
            f"set balance.process_group after loading, it was of ranks [{rank}]"
            in (state["message"])
        )
        assert_state(state["set"], state_after([2.0 + 2.0 * rank, 1.0]))


@pytest.mark.parametrize("form", ["within_ddp", "beside_ddp", "alone"])
@pytest.mark.parametrize("longer", [0, 1])
def test_uneven_inputs_work_under_join(found, form, longer):
    """Where one has run out, the mean is that of the other."""
    both = [[3.0 + step, 1.0] for step in range(3)]
    one = [[2.0 + 2.0 * longer + step, 1.0] for step in (3, 4)]
    for states in found[f"joined_{form}"]:
        assert_state(states[longer], state_after(*2 * (both + one)))


def test_a_sharded_model_from_the_meta_device_begins_fresh_on_both(found):
    for state in found["sharded_from_meta"]:
        assert only(state["fresh"]) == {
            "average": [-1.0, -1.0],
            "weights": [1.0, 1.0],
            "step": 0,
            "skipped": [0, 0],
        }
        assert_state(state["after"], state_after([3.0, 1.0]))


def test_forks_under_ddp_mix_by_the_weights_that_all_share(found):
    oracle = Oracle(2, decay=0.5)
    first, second = oracle.update([1.5, 4.5])
    for state in found["forked_under_ddp"]:
        assert_state(state, state_after([1.5, 4.5], [1.5, 4.5]))
        mixed = (first * 1.0 + second * 3.0) / (first + second)
        assert state["gradient"] == pytest.approx([1.5 * mixed, 1.5 * 3.0])
