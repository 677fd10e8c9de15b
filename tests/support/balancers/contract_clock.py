"""What every balancer promises of zeros, priorities and the clock: part of `BalancerContract`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.balancers.strategies import positive

from loss_balance import AdaLoss, Constant, DynamicWeightAverage, LinearSchedule, LogLoss, Static
from loss_balance.experiments.verification.oracle import Oracle

priorities = st.lists(st.sampled_from([0.0, 0.5, 1.0, 10.0]), min_size=3, max_size=3)
micro_batches = st.lists(  # each loss present or not in each micro-batch
    st.tuples(positive(3, 1e-3, 1e3), st.lists(st.booleans(), min_size=3, max_size=3)),
    min_size=2,
    max_size=4,
)


class ClockContract:
    """Mixed into `BalancerContract`, whose `make` and `step` it uses."""

    def weights(self, balancer):
        return balancer.export_state()["weights"]

    def assert_same_state(self, left, right, rtol=0.0, ignore=("identity",)):
        ours, theirs = left.export_state(), right.export_state()
        for name in ours.keys() - set(ignore):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, err_msg=name)

    # Zero means off

    @pytest.mark.parametrize(
        "scheme", [AdaLoss(2), LogLoss(2, decay=0.9), DynamicWeightAverage(2, window=3)], ids=repr
    )
    def test_a_loss_at_zero_is_as_absent_in_every_scheme_that_averages(self, scheme):
        zero, absent = self.make(scheme), self.make(scheme)
        for k in range(8):
            losses = [1.0 + k, 0.5]
            off = k % 3 == 1 or k == 0
            total = self.step(zero, [0.0 if off else losses[0], losses[1]])
            expected = self.step(absent, [None if off else losses[0], losses[1]])
            assert float(total) == float(expected)
            self.assert_same_state(zero, absent)

    def test_a_coefficient_that_falls_to_zero_leaves_the_others_alone(self):
        balancer = self.make(2)
        for k in range(60):
            self.step(balancer, [1.0, 0.5 * max(0.0, 1 - k / 20)])
            if k >= 20:
                assert self.weights(balancer)[1] == 1.0
        before = self.weights(balancer)[0]
        for _ in range(200):
            self.step(balancer, np.array([1.0, 0.0]))
        assert self.weights(balancer)[0] == pytest.approx(before, rel=1e-5)

    def test_a_loss_that_begins_after_many_zeros_starts_at_its_own_value(self):
        balancer = self.make(2)
        for _ in range(100):
            self.step(balancer, [0.0, 0.5])
            assert self.weights(balancer).tolist() == [1.0, 1.0]
        self.step(balancer, [0.7, 0.5])
        assert self.weights(balancer) == pytest.approx([0.95 * 0.5 / 0.7 + 0.05, 1.0], rel=1e-6)

    # Priorities

    @settings(max_examples=15)
    @given(priorities, positive(3, 1e-3, 1e3))
    def test_priorities_multiply_weights_that_never_see_them(self, factors, losses):
        scheme = AdaLoss(3)
        plain, built, called = (
            self.make(scheme),
            self.make(scheme, priorities=tuple(factors)),
            self.make(scheme, priorities=(3.0, 3.0, 3.0)),
        )
        self.step(plain, losses)
        totals = [
            float(self.step(built, losses)),
            float(self.step(called, losses, priorities=factors)),
        ]
        expected = float(np.sum(self.weights(plain) * factors * np.array(losses)))
        assert totals == pytest.approx([expected, expected], rel=1e-5, abs=1e-30)
        self.assert_same_state(built, plain)
        self.assert_same_state(called, plain)

    def test_priorities_may_change_every_step_and_disturb_nobody(self):
        ramped, plain = self.make(2), self.make(2)
        for k in range(6):
            losses = [1.0, 8.0]
            total = float(self.step(ramped, losses, priorities=[1.0, k / 5]))
            self.step(plain, losses)
            weights = self.weights(plain)
            assert total == pytest.approx(weights[0] + 8 * weights[1] * k / 5, rel=1e-5)
        self.assert_same_state(ramped, plain)

    def test_priorities_work_with_fixed_schemes(self):
        balancer = self.make(Static((5.0, 1.0)), priorities=(0.1, 1.0))
        assert float(self.step(balancer, [2.0, 3.0])) == pytest.approx(4.0)

    @pytest.mark.parametrize("wrong", [(1.0,), (1.0, -1.0), (1.0, float("nan"))])
    def test_priorities_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(ValueError, match="priorities must be 2 finite numbers of at least 0"):
            self.make(2, priorities=wrong)

    def test_priorities_of_the_wrong_length_are_named_and_change_nothing(self):
        balancer = self.make(2)
        with pytest.raises(ValueError, match=r"expected priorities of shape \(2,\), got \(3,\)"):
            self.step(balancer, [1.0, 2.0], priorities=[1.0, 1.0, 1.0])
        assert balancer.export_state()["step"] == 0

    # The clock is the optimiser's

    @settings(max_examples=15)
    @given(micro_batches)
    def test_micro_batches_leave_the_averages_of_the_undivided_batch(self, drawn):
        divided, whole = self.make(AdaLoss(3, decay=0.5)), self.make(AdaLoss(3, decay=0.5))
        merged: list[float | None] = []
        for values, there in zip(
            *(np.array(part).T for part in zip(*drawn, strict=True)), strict=True
        ):
            merged.append(float(values[there].mean()) if there.any() else None)
        for steps in range(2):
            for k, (losses, there) in enumerate(drawn):
                if k:
                    still = self.weights(divided)
                self.step(divided, losses, mask=there, update=k == len(drawn) - 1)
                if 0 < k < len(drawn) - 1:
                    np.testing.assert_array_equal(self.weights(divided), still)
            self.step(whole, merged)
            assert divided.export_state()["step"] == steps + 1
            self.assert_same_state(divided, whole, rtol=1e-5)

    def test_micro_batches_agree_with_the_oracle(self):
        balancer, oracle = self.make(AdaLoss(2, decay=0.5)), Oracle(2, decay=0.5)
        for first in (1.0, 4.0, 2.0):
            self.step(balancer, [first, None], update=False)
            self.step(balancer, [3.0 * first, 2.0], update=True)
            expected = oracle.update([2.0 * first, 2.0])
            np.testing.assert_allclose(self.weights(balancer), expected, rtol=1e-6)

    def test_weights_stand_still_where_update_is_false(self):
        balancer = self.make(2)
        self.step(balancer, [4.0, 1.0])
        before = self.weights(balancer)
        total = float(self.step(balancer, [1.0, 100.0], update=False))
        assert total == pytest.approx(float(before @ [1.0, 100.0]), rel=1e-5)
        np.testing.assert_array_equal(self.weights(balancer), before)
        assert balancer.export_state()["step"] == 1

    def test_a_bad_micro_batch_makes_its_loss_bad_once(self):
        balancer = self.make(2)
        self.step(balancer, [4.0, 1.0])
        before = balancer.export_state()
        self.step(balancer, [float("nan"), 1.0], update=False)
        self.step(balancer, [4.0, -1.0], update=False)
        self.step(balancer, [4.0, 1.0], update=True)
        after = balancer.export_state()
        assert after["skipped"].tolist() == [1, 1]
        assert after["average"].tolist() == before["average"].tolist()
        self.step(balancer, [4.0, 1.0])
        assert balancer.export_state()["skipped"].tolist() == [1, 1]

    def test_a_schedule_of_gamma_counts_updates(self):
        scheme = AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 4))
        divided, whole = self.make(scheme), self.make(scheme)
        for _ in range(3):
            for k in range(4):
                self.step(divided, [1.0, 2.0], update=k == 3)
            self.step(whole, [1.0, 2.0])
        self.assert_same_state(divided, whole, rtol=1e-6)

    def test_a_second_look_at_the_same_batch_can_be_told_to_observe_nothing(self):
        once, twice = self.make(2), self.make(2)
        for losses in ([4.0, 1.0], [2.0, 3.0]):
            self.step(once, losses)
            self.step(twice, losses)
            self.evaluate(twice, [1.0, 100.0])  # a closure called again, a recomputation
        self.assert_same_state(once, twice)

    # Absent, all of them

    @pytest.mark.parametrize("form", ["list", "mapping", "mask"])
    def test_a_step_without_any_loss_is_a_total_of_zero(self, form):
        balancer = self.make(2, names=["a", "b"])
        self.step(balancer, [4.0, 1.0])
        before = balancer.export_state()
        losses = {"list": [None, None], "mapping": {"a": None, "b": None}, "mask": [4.0, 1.0]}
        mask = [False, False] if form == "mask" else None
        assert float(self.step(balancer, losses[form], mask=mask)) == 0.0
        after = balancer.export_state()
        assert after["average"].tolist() == before["average"].tolist()
        assert after["step"] == 2

    # What goes in

    def test_losses_come_in_any_iterable_that_sum_takes(self):
        for wrap in (lambda x: {"a": x[0], "b": x[1]}.values(), lambda x: (y for y in x), iter):
            assert float(self.step(self.make(Constant(2)), [4.0, 1.0], wrap=wrap)) == 5.0

    @pytest.mark.parametrize("zero", [0, 0.0])
    def test_a_number_zero_among_the_losses_is_absent(self, zero):
        number, absent = self.make(2), self.make(2)
        for losses in ([4.0, 1.0], [3.0, zero], [2.0, 1.0]):
            self.step(number, losses, wrap=lambda x: [zero if float(y) == 0 else y for y in x])
            self.step(absent, [x or None for x in losses])
        self.assert_same_state(number, absent)

    def test_counts_may_be_numpys(self):
        assert self.make(np.int64(3)).scheme == AdaLoss(3)

    def test_a_weight_beyond_the_range_of_the_losses_dtype_still_gives_the_right_total(self):
        balancer = self.make(LogLoss(2))
        total = self.step(balancer, [2.0**-18, 1.0], dtype="float16")  # a weight of 262144
        assert float(total) == 2.0

    # Outliers

    def test_clip_and_warmup_are_alike_in_every_framework(self):
        options = {"decay": 0.9, "clip": 3.0, "warmup": 4}
        balancer, oracle = self.make(AdaLoss(2, **options)), Oracle(2, **options)
        for losses in ([1.0, 2.0], [100.0, 2.0], [1.0, None], [1.0, 0.0], [1e30, 4.0], [1.0, 1.0]):
            self.step(balancer, losses)
            expected = oracle.update(losses)
            np.testing.assert_allclose(self.weights(balancer), expected, rtol=1e-6)
