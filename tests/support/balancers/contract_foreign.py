"""What every balancer promises of states it did not write itself: part of `BalancerContract`."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from support.balancers.foreign_states import changed, mangled

LATER = "a later version of loss-balance wrote it"
ONES = np.ones(3)
# (what is changed in a state of three losses, what the error says); None takes a field away.
FOREIGN = [
    ({"average": np.ones(4)}, r"average has shape \(4,\), expected \(3,\)"),
    ({"average": ONES[None]}, r"average has shape \(1, 3\), expected \(3,\)"),
    ({"pending": ONES}, r"pending has shape \(3,\), expected \(2, 3\)"),
    ({"average": None}, "missing average"),
    ({"mean": ONES}, "unknown mean"),
    ({"step": ONES, "skipped": None}, r"missing skipped; step has shape \(3,\)"),
    ({"average": np.array([1.0, -5.0, 1.0])}, "average must be finite and not negative"),
    ({"average": np.array([1.0, math.nan, 1.0])}, "average must be finite numbers"),
    ({"average": np.array([1.0, math.inf, 1.0])}, "average must be finite numbers"),
    ({"average": np.array([1.0, None, 1.0])}, "average must be finite numbers, got dtype object"),
    ({"average": ONES.astype(complex)}, "average must be finite numbers, got dtype complex128"),
    ({"weights": np.array(["1", "1", "1"])}, "weights must be finite numbers, got dtype <U1"),
    ({"weights": ONES > 0.0}, "weights must be finite numbers, got dtype bool"),
    ({"weights": [[1.0], [], [1.0, 1.0]]}, "weights must be an array, got ValueError"),
    ({"weights": np.array([1.0, math.nan, 1.0])}, "weights must be finite numbers"),
    ({"weights": np.array([-5e15, 1.0, 1.0])}, "weights must be from 0 to 1"),
    ({"weights": np.array([1.5, 1.0, 1.0])}, "weights must be from 0 to 1"),
    ({"weights": np.zeros(3)}, "weights must be .* not all 0"),
    ({"step": np.array(-3)}, "step must be at least 0"),
    ({"step": np.array(2**40)}, "step must be .* at most 2147483647, got 1099511627776"),
    ({"step": np.array(2.5)}, "step must be at least 0, whole .*, got 2.5"),
    ({"step": np.array(math.nan)}, "step must be at least 0, whole"),
    ({"skipped": np.array([0, -1, 0])}, "skipped must be at least 0"),
    ({"skipped": np.array([0, 2**31, 0])}, "skipped must be .* at most 2147483647"),
    ({"recent": -ONES}, "recent must be finite and not negative"),
    ({"pending": np.array([ONES, -ONES])}, "pending must be counted from 0"),
    ({"pending": np.array([ONES, ONES * math.inf])}, "pending must be counted from 0"),
    ({"identity": np.frombuffer(b"no json", np.uint8)}, "identity must be"),
    ({"identity": np.frombuffer(b"[" * 100_000, np.uint8)}, "identity must be"),
    ({"identity": np.array(["{}"])}, "identity must be"),
    ({"identity": np.array([300, -1])}, "identity must be"),
    ({"identity": {"names": "abc"}}, "identity must be"),
    ({"identity": {"names": ["a", "b", "a"]}}, "identity must be"),
    ({"identity": {"calls": -1}}, "identity must be"),
    ({"identity": {"calls": 2**31}}, "identity must be"),
    ({"identity": {"scheme": None}}, "identity must be"),
    ({"identity": {"version": 2}}, rf"got \['version'\] too: {LATER}"),
    ({"identity": {"scheme": {"class": "AdaLoss", "heat": 2}}}, "unknown heat 2"),
    ({"identity": {"scheme": {"class": "Later"}}}, "it is of Later"),
]


def applied(exported, change):
    """The state with what is changed; a dict for the identity changes its entries."""
    found = exported | {name: value for name, value in change.items() if value is not None}
    whose = change.get("identity")
    if isinstance(whose, dict):
        text = json.dumps(json.loads(exported["identity"].tobytes()) | whose)
        found["identity"] = np.frombuffer(text.encode(), np.uint8)
    return {name: value for name, value in found.items() if change.get(name, 0) is not None}


class ForeignStateContract:
    """Mixed into `BalancerContract`, whose `make` and `step` it uses."""

    def assert_unchanged(self, balancer, before):
        after = balancer.export_state()
        assert after.keys() == before.keys()
        for name, value in after.items():
            np.testing.assert_array_equal(value, before[name])

    @pytest.mark.parametrize(("change", "message"), FOREIGN, ids=lambda x: str(x)[:40])
    def test_a_foreign_state_is_named_and_changes_nothing(self, change, message):
        balancer = self.trained()
        before = balancer.export_state()
        with pytest.raises(ValueError, match=message):
            balancer.import_state(applied(before, change))
        self.assert_unchanged(balancer, before)

    @pytest.mark.parametrize("state", [None, 7, "average", [1.0, 2.0]])
    def test_what_is_no_state_at_all_is_named_and_changes_nothing(self, state):
        balancer = self.trained()
        before = balancer.export_state()
        with pytest.raises(ValueError, match="a state must be arrays by name, got a"):
            balancer.import_state(state)
        self.assert_unchanged(balancer, before)

    def test_a_value_beyond_the_states_dtype_is_named_and_changes_nothing(self):
        balancer = self.make(2)
        before = balancer.export_state()
        huge = before | {"average": np.array([1e300, 1.0])}
        if before["average"].dtype == np.float64:
            balancer.import_state(huge)
            assert balancer.export_state()["average"].tolist() == [1e300, 1.0]
            return
        message = r"average must be finite numbers in float32, got \[1e\+300, 1.0\]"
        with pytest.raises(ValueError, match=message):
            balancer.import_state(huge)
        self.assert_unchanged(balancer, before)

    @settings(max_examples=25)
    @given(mangled())
    def test_whatever_comes_is_refused_or_leaves_a_state_that_can_be(self, drawn):
        self.assert_refused_or_can_be(*drawn)

    def assert_refused_or_can_be(self, scheme, changes):
        balancer = self.trained(scheme)
        before = balancer.export_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of losses that were bad of late
            try:
                balancer.import_state(changed(before, changes))
            except ValueError:
                self.assert_unchanged(balancer, before)
            self.assert_can_be(balancer)
            assert math.isfinite(float(self.step(balancer, [4.0, 1.0, 0.5])))
            self.assert_can_be(balancer)

    def assert_can_be(self, balancer):
        state, scheme = balancer.export_state(), balancer.scheme
        for name in ("average", "weights", "recent"):
            assert np.isfinite(state[name]).all(), name
        average = state["average"]
        assert scheme.takes_negative or np.all((average > 0.0) | (average == -1.0))
        assert np.all(
            (state["weights"] >= 0.0) & (state["weights"] <= 1e-5 + scheme.largest_weight())
        )
        for name in ("step", "skipped", "recent"):
            assert np.all(state[name] >= 0), name
