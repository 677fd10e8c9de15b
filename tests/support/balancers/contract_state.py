"""What every balancer promises of its state and whose it is: part of `BalancerContract`."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from loss_balance import AdaLoss, Constant, DynamicWeightAverage, Linear, LogLoss, Static


def without(exported, *names):
    return {name: value for name, value in exported.items() if name not in names}


class StateContract:
    """Mixed into `BalancerContract`, whose `make` and `step` it uses."""

    warns_once = True

    def trained(self, scheme=3, **options):
        balancer = self.make(scheme, **options)
        for losses in ([4.0, 1.0, 0.5], [3.0, 2.0, 0.25]):
            self.step(balancer, losses)
        return balancer

    # Reset

    def test_reset_begins_anew(self):
        balancer, fresh = self.trained(), self.make(3)
        balancer.reset()
        self.assert_same_state(balancer, fresh)
        for one in (balancer, fresh):
            self.step(one, [1.0, 2.0, 3.0])
        self.assert_same_state(balancer, fresh)

    def test_a_loss_that_is_gone_for_good_can_be_reset_by_name(self):
        balancer = self.make(2, names=["a", "b"])
        for _ in range(20):
            self.step(balancer, [1.0, 0.001])
        for _ in range(5):
            self.step(balancer, [1.0, None])
        assert balancer.export_state()["weights"][0] == pytest.approx(0.05095)
        balancer.reset("b")
        self.step(balancer, [1.0, None])
        state = balancer.export_state()
        assert state["weights"].tolist() == [1.0, 1.0]
        assert state["average"].tolist() == [1.0, -1.0]
        assert state["step"] == 26

    def test_losses_without_names_are_reset_by_number(self):
        balancer = self.trained()
        balancer.reset(0, 2)
        state = balancer.export_state()
        assert (state["average"] == -1.0).tolist() == [True, False, True]

    def test_a_name_that_is_not_there_cannot_be_reset(self):
        balancer = self.trained(names=["a", "b", "c"])
        before = balancer.export_state()
        with pytest.raises(ValueError, match=r"must be among .'a', 'b', 'c'., got .'d'."):
            balancer.reset("a", "d")
        np.testing.assert_array_equal(balancer.export_state()["average"], before["average"])

    # Identity

    def test_an_export_says_whose_it_is(self):
        exported = self.trained(AdaLoss(3, gamma=0.1), names=["a", "b", "c"]).export_state()
        whose = json.loads(exported["identity"].tobytes())
        assert whose["names"] == ["a", "b", "c"]
        assert whose["scheme"]["class"] == "AdaLoss"
        assert whose["scheme"]["gamma"] == 0.1

    @pytest.mark.parametrize(
        ("scheme", "message"),
        [
            (AdaLoss(3, gamma=0.5), r"gamma was 0.05, is 0.5"),
            (AdaLoss(3, decay=0.5, gamma=0.5), r"gamma was 0.05, is 0.5.*decay was 0.99, is 0.5"),
            (LogLoss(3), "it is of AdaLoss"),
            (Static((5.0, 1.0, 1.0)), "it is of AdaLoss"),
        ],
    )
    def test_another_schemes_state_is_refused_by_name_and_changes_nothing(self, scheme, message):
        exported, other = self.trained().export_state(), self.make(scheme)
        before = other.export_state()
        with pytest.raises(ValueError, match=message):
            other.import_state(exported)
        for name, value in other.export_state().items():
            np.testing.assert_array_equal(value, before[name])

    def test_other_hyperparameters_go_on_all_the_same_if_told_so(self):
        kept, other = self.trained(), self.make(AdaLoss(3, gamma=0.5))
        other.import_state(kept.export_state(), strict=False)
        self.assert_same_state(kept, other)
        self.step(other, [3.0, 2.0, 0.25])
        assert other.export_state()["weights"].min() > 0.5

    def test_another_class_of_scheme_takes_what_both_have_if_told_so(self):
        kept, other = self.trained(), self.make(LogLoss(3, decay=0.9))
        other.import_state(kept.export_state(), strict=False)
        ours, theirs = other.export_state(), kept.export_state()
        np.testing.assert_allclose(ours["average"], theirs["average"])
        assert ours["weights"].tolist() == [1.0, 1.0, 1.0]
        windows = self.make(DynamicWeightAverage(3, window=2))
        windows.import_state(theirs, strict=False)
        self.step(windows, [3.0, 2.0, 0.25])

    @pytest.mark.parametrize("old", [False, True], ids=["now", "0.1"])
    def test_fixed_weights_are_configuration_and_never_come_from_a_state(self, old):
        ones, fives = self.make(Static((1.0, 1.0, 1.0))), self.make(Static((5.0, 1.0, 1.0)))
        self.step(ones, [1.0, 1.0, 1.0])
        exported = ones.export_state()
        if old:
            fives.import_state(without(exported, "identity", "recent", "pending"))
        else:
            with pytest.raises(ValueError, match="weights was"):
                fives.import_state(exported)
            fives.import_state(exported, strict=False)
        assert fives.export_state()["weights"].tolist() == [5.0, 1.0, 1.0]
        assert float(self.step(fives, [1.0, 1.0, 1.0])) == 7.0
        linear = self.make(Linear(3))
        linear.import_state(self.make(Constant(3)).export_state(), strict=False)
        assert linear.export_state()["weights"].tolist() == [0.25, 0.625, 1.0]

    def test_losses_are_matched_by_name(self):
        kept = self.trained(names=["a", "b", "c"])
        other = self.make(3, names=["c", "a", "b"])
        other.import_state(kept.export_state())
        ours, theirs = other.export_state(), kept.export_state()
        np.testing.assert_array_equal(ours["average"], theirs["average"][[2, 0, 1]])
        np.testing.assert_array_equal(ours["weights"], theirs["weights"][[2, 0, 1]])

    def test_another_set_of_losses_is_refused_or_taken_in_part_on_request(self):
        kept, other = self.trained(names=["a", "b", "c"]), self.make(2, names=["c", "new"])
        with pytest.raises(ValueError, match=r"losses are .'a', 'b', 'c'., expected .'c', 'new'."):
            other.import_state(kept.export_state())
        other.import_state(kept.export_state(), partial=True)
        ours, theirs = other.export_state(), kept.export_state()
        assert ours["average"].tolist() == [theirs["average"][2], -1.0]
        assert ours["weights"].tolist() == [theirs["weights"][2], 1.0]
        assert ours["step"] == 2

    def test_states_of_version_0_1_load(self):
        kept, fresh = self.trained(), self.make(3)
        fresh.import_state(without(kept.export_state(), "identity", "recent", "pending"))
        self.assert_same_state(kept, fresh)

    def test_a_state_in_the_middle_of_an_accumulation_goes_on(self):
        kept, fresh = self.trained(), self.make(3)
        self.step(kept, [9.0, 9.0, 9.0], update=False)
        fresh.import_state(kept.export_state())
        for one in (kept, fresh):
            self.step(one, [1.0, 2.0, None])
        self.assert_same_state(kept, fresh)
        assert fresh.export_state()["pending"].tolist() == [[0.0] * 3] * 2

    def test_a_moving_average_of_states_is_a_state(self):
        """As EMA of a whole model makes: of a loss seen late, its average is one with UNSEEN."""
        balancer = self.trained()
        exported = balancer.export_state()
        balancer.import_state(exported | {"average": np.array([-0.9, 2.0, 0.5])})
        assert balancer.export_state()["average"].tolist() == [-1.0, 2.0, 0.5]
        self.step(balancer, [4.0, 2.0, 0.5])
        assert balancer.export_state()["average"][0] == 4.0

    # Bad values are never silent

    @pytest.mark.parametrize("bad", [-2.0, math.nan])
    def test_a_loss_that_is_mostly_bad_is_shown_and_warned_of_once(self, bad):
        balancer = self.make(2, names=["good", "evil"])
        self.step(balancer, [1.0, 1.0])
        for _ in range(49):
            self.step(balancer, [1.0, bad])
        assert balancer.metrics()["loss_skipped/evil"] == 49.0  # not yet more than half of 100
        for _ in range(3):
            self.step(balancer, [1.0, bad])
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            metrics = balancer.metrics()
        (warning,) = seen
        assert "losses evil: NaN, infinite or negative" in str(warning.message)
        assert (metrics["loss_skipped/good"], metrics["loss_skipped/evil"]) == (0.0, 52.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if self.warns_once else "ignore", UserWarning)
            balancer.export_state()

    def test_schemes_that_divide_by_no_loss_take_negative_ones(self):
        for scheme in (Constant(2), Static((1.0, 0.1)), DynamicWeightAverage(2, window=3)):
            balancer = self.make(scheme)
            for _ in range(4):
                total = float(self.step(balancer, [-1.0, 1.0]))
            assert total == pytest.approx(float(balancer.export_state()["weights"] @ [-1.0, 1.0]))
            assert balancer.export_state()["skipped"].tolist() == [0, 0]

    def test_metrics_show_weights_averages_and_skips(self):
        balancer = self.make(2, names=["near", "far"])
        self.step(balancer, [4.0, None])
        shown = balancer.metrics()
        assert math.isnan(shown.pop("loss_average/far"))
        assert shown == {
            "loss_weight/near": 1.0,
            "loss_weight/far": 1.0,
            "loss_average/near": 4.0,
            "loss_skipped/near": 0.0,
            "loss_skipped/far": 0.0,
        }
        assert not any("average" in name for name in self.make(Constant(2)).metrics())
