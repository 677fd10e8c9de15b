"""What every balancer promises, in every framework: subclass `BalancerContract` and fill the gaps.

The subclass knows its framework; the tests here speak Python floats and NumPy arrays alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.balancers.contract_clock import ClockContract
from support.balancers.contract_foreign import ForeignStateContract
from support.balancers.contract_forks import ForkContract
from support.balancers.contract_soak import SoakContract
from support.balancers.contract_state import StateContract
from support.balancers.strategies import any_losses, runs

from loss_balance import (
    AdaLoss,
    Constant,
    DynamicWeightAverage,
    HalfEnd,
    Linear,
    LinearSchedule,
    LogLoss,
    PowerMean,
    RelativeAdaLoss,
    Single,
    SoftmaxInverse,
    Static,
    UncertaintyWeighting,
)
from loss_balance.experiments.verification.oracle import Oracle

Losses = list[float | None]
STEPS: list[Losses] = [[4.0, 1.0, 0.5], [3.0, 2.0, 0.25], [5.0, 0.5, 0.125], [2.0, 1.5, 0.1]]
SCHEMES = [
    AdaLoss(3),
    AdaLoss(3, gamma=0.0, decay=0.0, final_weight=2.0),
    AdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 4), update_every=2),
    Constant(3),
    Linear(3),
    HalfEnd(3),
    Single(3, 1),
    Static((0.5, 2.0, 0.0)),
    LogLoss(3),
    SoftmaxInverse(3, decay=0.5, scaled=True),
    UncertaintyWeighting(3, learning_rate=0.1),
    DynamicWeightAverage(3, window=2),
    PowerMean(3, power=-1.0),
    PowerMean(3, power=0.5, gamma=0.1, final_weight=2.0, warmup=2),
    RelativeAdaLoss(3),
    RelativeAdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 4), decay=0.5, final_weight=2.0, warmup=3),
]
with_each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=repr)


class BalancerContract(ClockContract, StateContract, ForeignStateContract, SoakContract, ABC):
    """The gaps first, then the promises."""

    low_precision: ClassVar[str] = "bfloat16"  # a dtype narrower than float32 that losses come in
    tolerance: ClassVar[float] = 1e-6  # of the weights against float64, state in float32
    wide: ClassVar[Any]  # the framework's float64, for a state in it

    @abstractmethod
    def make(self, scheme: Any, **options: Any) -> Any:
        """A balancer."""

    @abstractmethod
    def step(
        self,
        balancer: Any,
        losses: Any,
        mask: Any = None,
        dtype: str = "float32",
        *,
        wrap: Callable[[Any], Any] = lambda losses: losses,
        **options: Any,
    ) -> Any:
        """One call in training mode; `losses` holds floats and None, in any container.

        `wrap` is called with the framework's own losses last; `options` are the call's `priorities`
        and `norms` (lists) and `update` (a bool).
        """

    @abstractmethod
    def evaluate(self, balancer: Any, losses: list[float]) -> float:
        """The total of one call in evaluation mode."""

    @abstractmethod
    def dtype_of(self, total: Any) -> str:
        """The name of a total's dtype."""

    @abstractmethod
    def save(self, balancer: Any, path: Path) -> None:
        """Writes the framework's own checkpoint."""

    @abstractmethod
    def load(self, balancer: Any, path: Path) -> None:
        """Reads it back into a fresh balancer."""

    def run(self, balancer: Any, steps: list[Losses]) -> list[np.ndarray]:
        """The weights after each step."""
        seen = []
        for losses in steps:
            self.step(balancer, losses)
            seen.append(balancer.export_state()["weights"])
        return seen

    # The weights

    @with_each_scheme
    def test_weights_equal_those_of_the_core_in_float64(self, scheme):
        state = scheme.init(np)
        for losses, weights in zip(STEPS, self.run(self.make(scheme), STEPS), strict=True):
            state = scheme.update(state, np.array(losses), np)
            np.testing.assert_allclose(weights, state.weights, rtol=self.tolerance)

    @settings(max_examples=30)
    @given(runs(steps=6))
    def test_weights_equal_the_oracle_in_float64_to_1e_12(self, drawn):
        scheme, arguments, steps = drawn
        balancer, oracle = self.make(scheme, dtype=self.wide), Oracle(**arguments)
        for losses in steps:
            if any(x is not None and x < 0 for x in losses) and oracle.step == 0:
                continue  # a negative loss at the start is refused: see below
            self.step(balancer, losses, dtype="float64")
            expected = oracle.update(losses)
            state = balancer.export_state()
            np.testing.assert_allclose(state["weights"], expected, rtol=1e-12)
            assert state["skipped"].tolist() == oracle.skipped

    @settings(max_examples=30)
    @given(runs(steps=12))
    def test_weights_equal_the_oracle_in_float32_to_1e_6(self, drawn):
        scheme, arguments, steps = drawn
        balancer, oracle = self.make(scheme), Oracle(**arguments)
        for losses in steps:
            losses = [None if x is None else float(np.float32(x)) for x in losses]
            if oracle.step == 0 and any(x is not None and x < 0 for x in losses):
                continue  # refused: see below
            self.step(balancer, losses)
            expected = oracle.update(losses)
            # Where rounding decides whether an average is above the floor, nothing can agree.
            assume(
                all(abs(a / scheme.floor - 1) > 1e-4 for a in oracle.average if a and scheme.floor)
            )
            weights = balancer.export_state()["weights"]
            np.testing.assert_allclose(weights, expected, rtol=self.tolerance)

    @with_each_scheme
    def test_the_total_is_the_weighted_sum(self, scheme):
        balancer = self.make(scheme)
        for losses in STEPS:
            total = float(self.step(balancer, losses))
            weights = balancer.export_state()["weights"]
            assert total == pytest.approx(float(weights @ np.array(losses)), rel=1e-5)

    @pytest.mark.parametrize("container", [list, tuple, np.array])
    def test_losses_come_as_a_sequence_or_stacked(self, container):
        assert float(self.step(self.make(3), container([4.0, 1.0, 0.5]))) == pytest.approx(
            0.16875 * 4 + 0.525 + 0.5
        )

    def test_losses_come_as_a_mapping_in_the_order_of_the_names(self):
        balancer = self.make(2, names=["near", "far"])
        self.step(balancer, {"far": 1.0, "near": 4.0})
        metrics = balancer.metrics()
        assert (metrics["loss_weight/near"], metrics["loss_weight/far"]) == pytest.approx(
            (0.2875, 1.0)
        )
        assert all(type(value) is float for value in metrics.values())

    def test_without_names_the_metrics_are_numbered(self):
        metrics = self.make(2).metrics()
        assert (metrics["loss_weight/0"], metrics["loss_weight/1"]) == (1.0, 1.0)

    def test_a_number_means_adaloss_with_its_defaults(self):
        assert self.make(9).scheme == AdaLoss(9)

    # State

    @with_each_scheme
    def test_the_state_survives_the_frameworks_own_checkpoint(self, scheme, tmp_path):
        kept, fresh = self.make(scheme), self.make(scheme)
        self.run(kept, STEPS)
        self.save(kept, tmp_path / "checkpoint")
        self.load(fresh, tmp_path / "checkpoint")
        self.assert_equal_now_and_later(kept, fresh)

    @with_each_scheme
    def test_the_state_survives_export_and_import(self, scheme, tmp_path):
        kept, fresh = self.make(scheme), self.make(scheme)
        self.run(kept, STEPS)
        np.savez(tmp_path / "state.npz", **kept.export_state())
        with np.load(tmp_path / "state.npz", allow_pickle=False) as exported:
            fresh.import_state(dict(exported))
        self.assert_equal_now_and_later(kept, fresh)

    def assert_equal_now_and_later(self, kept, fresh, later=STEPS):
        for steps in ([], later):
            self.run(kept, steps)
            self.run(fresh, steps)
            for name, value in kept.export_state().items():
                np.testing.assert_array_equal(fresh.export_state()[name], value, err_msg=name)

    def test_an_export_is_a_copy(self):
        balancer = self.make(3)
        exported = balancer.export_state()
        self.run(balancer, STEPS)
        assert exported["weights"].tolist() == [1.0, 1.0, 1.0]
        exported = balancer.export_state()
        exported["weights"][:] = 7.0
        assert balancer.export_state()["weights"].max() == 1.0

    def test_evaluation_freezes_the_state(self):
        balancer = self.make(3)
        self.run(balancer, STEPS)
        before = balancer.export_state()
        total = self.evaluate(balancer, [1.0, 2.0, 3.0])
        assert total == pytest.approx(float(before["weights"] @ [1.0, 2.0, 3.0]), rel=1e-5)
        for name, value in balancer.export_state().items():
            np.testing.assert_array_equal(value, before[name])
        self.step(balancer, STEPS[0])
        assert balancer.export_state()["step"] == before["step"] + 1

    # Precision

    def test_low_precision_losses_keep_a_float32_state_and_their_own_total(self):
        balancer = self.make(AdaLoss(2, decay=0.99))
        total = self.step(balancer, [1.0, 2.0], dtype=self.low_precision)
        assert self.dtype_of(total) == self.low_precision
        for _ in range(500):  # in bfloat16 this mean would stall far from 1.5
            self.step(balancer, [1.5, 2.0], dtype=self.low_precision)
        state = balancer.export_state()
        assert state["average"].dtype in (np.float32, np.float64)
        assert state["average"][0] == pytest.approx(1.5, abs=0.01)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_total_has_the_losses_dtype(self, dtype):
        assert self.dtype_of(self.step(self.make(2), [1.0, 2.0], dtype=dtype)) == dtype

    # Bad values

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_bad_value_is_skipped_counted_and_shown_in_the_total(self, bad):
        balancer, spared = self.make(3), self.make(3)
        for one in (balancer, spared):
            self.run(one, STEPS)
        before = balancer.export_state()
        assert not math.isfinite(float(self.step(balancer, [2.0, bad, 1.0])))
        self.step(spared, [2.0, None, 1.0])
        after = balancer.export_state()
        assert after["skipped"].tolist() == [0, 1, 0]
        assert after["average"][1] == before["average"][1]
        assert after["weights"][1] == before["weights"][1]
        assert after["average"].tolist() == spared.export_state()["average"].tolist()
        assert all(map(math.isfinite, self.run(balancer, STEPS)[-1]))

    def test_a_negative_loss_is_refused_in_the_first_call_and_changes_nothing(self):
        balancer = self.make(2)
        with pytest.raises(ValueError, match=r"losses must not be negative .*, got \[1.0, -2.0\]"):
            self.step(balancer, [1.0, -2.0])
        assert balancer.export_state()["step"] == 0
        self.step(balancer, [1.0, 2.0])
        assert float(self.step(balancer, [1.0, -2.0])) < 1.0
        assert balancer.export_state()["skipped"].tolist() == [0, 1]

    def test_a_resumed_run_takes_a_negative_loss_as_the_uninterrupted_one_does(self):
        kept, resumed = self.make(2), self.make(2)
        self.step(kept, [1.0, 2.0])
        resumed.import_state(kept.export_state())
        for balancer in (kept, resumed):
            self.step(balancer, [1.0, -2.0])
        self.assert_equal_now_and_later(kept, resumed, [[1.0, 2.0]])

    def test_an_absent_loss_neither_counts_nor_contributes(self):
        balancer = self.make(3)
        self.run(balancer, STEPS)
        before = balancer.export_state()
        total = float(self.step(balancer, [2.0, None, 1.0]))
        after = balancer.export_state()
        assert after["skipped"].tolist() == [0, 0, 0]
        assert after["average"][1] == before["average"][1]
        assert total == pytest.approx(after["weights"][0] * 2.0 + after["weights"][2], rel=1e-5)

    @settings(max_examples=20)
    @given(any_losses(4), st.lists(st.booleans(), min_size=4, max_size=4))
    def test_a_mask_means_the_same_as_none(self, losses, mask):
        losses = [1.0 if x is None or x < 0 else x for x in losses]
        masked, without = self.make(4), self.make(4)
        expected = [x if m else None for x, m in zip(losses, mask, strict=True)]
        total = float(self.step(masked, losses, mask=mask))
        np.testing.assert_equal(total, float(self.step(without, expected)))
        for name, value in without.export_state().items():
            np.testing.assert_array_equal(masked.export_state()[name], value)

    def test_a_zero_loss_weighs_1_and_starves_nobody(self):
        weights = self.run(self.make(3), [[2.0, 0.0, 1.0]])[-1]
        np.testing.assert_allclose(weights, [0.525, 1.0, 1.0], rtol=1e-6)

    # Wrong calls

    @pytest.mark.parametrize(
        ("losses", "message"),
        [
            ([1.0, 2.0], "expected 3 losses, got 2"),
            ([], "expected 3 losses, got 0"),
            (np.ones(4), r"expected losses of shape \(3,\), got \(4,\)"),
            (np.ones((3, 1)), r"expected losses of shape \(3,\), got \(3, 1\)"),
            ({"a": 1.0, "b": 2.0}, "must have exactly the names .'a', 'b', 'c'., got .'a', 'b'."),
            ({"a": 1.0, "b": 2.0, "d": 3.0}, "must have exactly the names"),
            (7.0, "losses must be an iterable of scalars, a mapping or a stacked array, got"),
        ],
    )
    def test_wrong_losses_are_named_and_change_nothing(self, losses, message):
        balancer = self.make(3, names=["a", "b", "c"])
        with pytest.raises(ValueError, match=message):
            self.step(balancer, losses)
        assert balancer.export_state()["step"] == 0

    def test_a_loss_that_is_no_scalar_is_named(self):
        with pytest.raises(ValueError, match=r"each loss must be a scalar .*loss 1 has shape \(2,"):
            self.step(self.make(2), [1.0, np.ones(2)])

    def test_a_mask_of_the_wrong_length_is_named(self):
        with pytest.raises(ValueError, match=r"expected a mask of shape \(2,\), got \(3,\)"):
            self.step(self.make(2), [1.0, 2.0], mask=[True, True, False])

    def test_a_mapping_without_names_is_refused(self):
        with pytest.raises(ValueError, match="a mapping of losses needs"):
            self.step(self.make(2), {"a": 1.0, "b": 2.0})

    @pytest.mark.parametrize("names", [["a"], ["a", "a"]])
    def test_names_that_do_not_fit_are_refused(self, names):
        with pytest.raises(ValueError, match="names must be 2 distinct strings"):
            self.make(2, names=names)


class GradientContract(ForkContract, BalancerContract):
    """More promises, where the framework differentiates."""

    @abstractmethod
    def gradient(self, balancer: Any, losses: list[float], dtype: str = "float32") -> list[float]:
        """The gradient of one call's total with respect to each loss."""

    @abstractmethod
    def gradient_of_square(self, balancer: Any, x: float, scales: list[float]) -> float:
        """d total / d x for the losses `scale * x**2`, differentiated through everything."""

    @with_each_scheme
    def test_the_gradient_is_the_weights(self, scheme):
        balancer = self.make(scheme)
        for losses in STEPS:
            gradient = self.gradient(balancer, losses)
            np.testing.assert_allclose(gradient, balancer.export_state()["weights"], rtol=1e-6)

    @with_each_scheme
    def test_no_gradient_flows_through_the_weights(self, scheme):
        balancer = self.make(scheme)
        scales = [3.0, 1.0, 0.1]
        found = self.gradient_of_square(balancer, 1.5, scales)
        weights = balancer.export_state()["weights"]
        assert found == pytest.approx(float(sum(weights * np.array(scales) * 2 * 1.5)), rel=1e-5)
