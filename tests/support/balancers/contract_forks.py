"""What every balancer in equilibrium promises: forks, guidance, and norms of gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from loss_balance import AdaLoss, Constant, GradientNorm, Static
from loss_balance.equilibrium import guidance

STEPS = [[4.0, 1.0, 0.5], [3.0, 2.0, 0.25], [5.0, 0.5, 0.125]]
X, HEADS, SLOPES = [0.3, -0.8, 0.5, 0.1], [1.5, -0.7, 2.0], [0.9, 1.3, -0.6]


class Pass(NamedTuple):
    """What went through a chain of exits and back, as NumPy arrays."""

    losses: Any  # (exits,)
    read: Any  # (exits, 4), what each head read
    trunk: Any  # (4,), gradient of the sum of losses by x
    heads: Any  # (exits,), and by the heads
    norms: Any  # (exits,), gradient of the probe, None without


def chain(
    fork: Callable[..., Any],
    x: Any,
    heads: Any,
    tanh: Callable[[Any], Any],
    total: Callable[[Any], Any],
    again: Callable[[Any], Any] = lambda step: step,
) -> tuple[list[Any], list[Any]]:
    """(losses, what the heads read) of a trunk whose maps are a structure of two, one not read."""

    def step(x: Any, head: Any, i: int) -> tuple[Any, ...]:
        y = tanh(SLOPES[i] * x)
        read, onward = fork({"coarse": y, "others": [0.5 * y]}, i)
        loss = head * total(read["coarse"] ** 2)
        return loss, read["coarse"], onward["coarse"], onward["others"][0]

    losses, reads = [], []
    for i in range(len(SLOPES)):
        loss, read, coarse, other = again(step)(x, heads[i], i)
        losses.append(loss)
        reads.append(read)
        x = coarse + other
    return losses, reads


def by_hand(x: Any, heads: Any) -> tuple[Any, Any, Any]:
    """(losses (exits,), their gradients by x (exits, 4), those by what each head reads)."""
    x, slope = np.array(x), np.ones(4)
    losses, by_x, by_read = [], [], []
    for i, head in enumerate(heads):
        y = np.tanh(SLOPES[i] * x)
        slope = slope * (1 - y**2) * SLOPES[i]
        losses.append(head * (y**2).sum())
        by_read.append(head * 2 * y)
        by_x.append(by_read[-1] * slope)
        x, slope = 1.5 * y, 1.5 * slope
    return np.array(losses), np.array(by_x), np.array(by_read)


class ForkContract(ABC):
    """The gap first, then the promises."""

    ways: ClassVar[tuple[str, ...]] = ("usual",)  # of `forked`
    fork_dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")

    @abstractmethod
    def forked(
        self, balancer: Any, x: Any, heads: Any, dtype: str, way: str, *, probe: bool
    ) -> Pass:
        """`chain` with the balancer's fork, there and back; the balancer itself is not called."""

    @abstractmethod
    def guided(self, balancer: Any, logits: Any, **options: Any) -> tuple[float, Any]:
        """(`balancer.guidance(logits)`, its gradient by the logits)."""

    def in_equilibrium(self, scheme: Any = None, **options: Any) -> Any:
        """A balancer whose weights differ."""
        balancer = self.make(AdaLoss(3) if scheme is None else scheme, equilibrium=True, **options)
        for losses in STEPS:
            self.step(balancer, losses)
        return balancer

    def through(
        self, balancer: Any, dtype: str = "float32", way: str = "usual", *, probe: bool = False
    ) -> Pass:
        found = self.forked(balancer, X, HEADS, dtype, way, probe=probe)
        return Pass(*(None if x is None else np.asarray(x, np.float64) for x in found))

    def test_the_trunk_receives_the_weighted_mean_and_heads_their_own(self):
        for way in self.ways:
            balancer = self.in_equilibrium()
            weights = np.asarray(balancer.export_state()["weights"], np.float64)
            losses, by_x, by_read = by_hand(X, HEADS)
            found = self.through(balancer, way=way)
            np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
            np.testing.assert_allclose(found.trunk, weights @ by_x / weights.sum(), rtol=1e-4)
            np.testing.assert_allclose(found.heads, losses / HEADS, rtol=1e-5)
            np.testing.assert_allclose(
                found.read * 2 * np.array(HEADS)[:, None], by_read, rtol=1e-4
            )

    def test_in_low_precision_too(self):
        wanted = self.through(self.in_equilibrium())
        for dtype in self.fork_dtypes:
            found = self.through(self.in_equilibrium(), dtype)
            np.testing.assert_allclose(found.trunk, wanted.trunk, rtol=0.05, atol=0.02)

    def test_the_total_is_the_plain_sum_and_the_averages_move_as_ever(self):
        balanced, plain = (self.make(3, equilibrium=x) for x in (True, False))
        for losses in [*STEPS, [1.0, None, 2.0]]:
            total = float(self.step(balanced, losses))
            self.step(plain, losses)
            assert total == pytest.approx(sum(x for x in losses if x is not None), rel=1e-6)
        for name, value in plain.export_state().items():
            np.testing.assert_allclose(balanced.export_state()[name], value, rtol=1e-6)

    def test_constant_weights_are_gradient_equilibrium(self):
        _, by_x, _ = by_hand(X, HEADS)
        found = self.through(self.in_equilibrium(Constant(3)))
        np.testing.assert_allclose(found.trunk, by_x.mean(axis=0), rtol=1e-4)

    def test_weights_of_zero_pull_nothing(self):
        losses, by_x, _ = by_hand(X, HEADS)
        found = self.through(self.in_equilibrium(Static((1.0, 0.0, 0.0))))
        np.testing.assert_allclose(found.trunk, by_x[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.heads, losses / HEADS, rtol=1e-5)

    def test_priorities_pull_too(self):
        balancer = self.in_equilibrium(Constant(3), priorities=[1.0, 0.0, 3.0])
        _, by_x, _ = by_hand(X, HEADS)
        wanted = (by_x[0] + 3 * by_x[2]) / 4
        np.testing.assert_allclose(self.through(balancer).trunk, wanted, rtol=1e-4)

    def test_the_pull_is_a_power_of_the_weights(self):
        balancer = self.in_equilibrium(pull=0.5)
        pulls = np.sqrt(np.asarray(balancer.export_state()["weights"], np.float64))
        _, by_x, _ = by_hand(X, HEADS)
        wanted = pulls @ by_x / pulls.sum()
        np.testing.assert_allclose(self.through(balancer).trunk, wanted, rtol=1e-4)
        with pytest.raises(ValueError, match="pull must be a number in"):
            self.make(3, equilibrium=True, pull=2.0).fork({}, 0)

    def test_priorities_of_one_call_come_too_late(self):
        balancer = self.in_equilibrium()
        before = balancer.export_state()
        with pytest.raises(
            ValueError, match="in equilibrium priorities must be the balancer's own"
        ):
            self.step(balancer, STEPS[0], priorities=[1.0, 2.0, 3.0])
        assert balancer.export_state()["step"] == before["step"]

    def test_an_exit_has_its_number_or_its_name(self):
        balancer = self.make(3, names=["a", "b", "c"], equilibrium=True)
        read, onward = balancer.fork({}, "b")
        assert (read, onward) == ({}, {})
        for index in (3, -1, 1.0, True, "d", None):
            with pytest.raises(ValueError, match="a fork must be of an exit from 0 to 2 or"):
                balancer.fork({}, index)

    def test_a_weighted_sum_has_no_forks(self):
        with pytest.raises(ValueError, match=r"fork needs a balancer in equilibrium"):
            self.make(3).fork({}, 0)

    def test_guidance_is_that_of_the_core_and_teaches_all_but_the_last(self):
        logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
        balancer = self.in_equilibrium()
        weights = np.asarray(balancer.export_state()["weights"], np.float64)
        for options in ({}, {"strength": 0.5, "temperature": 2.0}):
            usual = {"strength": 1.0, "temperature": 3.0, **options}
            wanted = guidance(logits.astype(np.float64), weights, xp=np, **usual).sum()
            total, gradient = self.guided(balancer, logits, **options)
            assert total == pytest.approx(wanted, rel=1e-5)
            assert np.abs(gradient[:-1]).max(axis=(1, 2)).min() > 0.0
            assert np.abs(gradient[-1]).max() == 0.0

    def test_norms_are_those_of_the_gradients_where_exits_branch_off(self):
        _, _, by_read = by_hand(X, HEADS)
        for way in self.ways:
            found = self.through(self.in_equilibrium(), way=way, probe=True)
            np.testing.assert_allclose(found.norms, np.sqrt((by_read**2).sum(axis=1)), rtol=1e-4)

    def test_gradient_norm_follows_the_norms_alone(self):
        scheme = GradientNorm(3, decay=0.5)
        balancer, state = self.make(scheme, equilibrium=True), scheme.init(np)
        for losses, norms in zip([*STEPS, [-1.0, 1.0, 1.0]], [[0.0] * 3, *STEPS], strict=True):
            total = float(self.step(balancer, losses, norms=norms))
            assert total == pytest.approx(sum(losses))
            state = scheme.update(state, np.array(norms), np)
        np.testing.assert_allclose(balancer.export_state()["weights"], state.weights, rtol=1e-6)

    @pytest.mark.parametrize(
        ("scheme", "options", "norms", "message"),
        [
            (GradientNorm(3), {}, [1.0] * 3, "GradientNorm needs a balancer in equilibrium"),
            (GradientNorm(3), {"equilibrium": True}, None, "GradientNorm needs norms="),
            (AdaLoss(3), {"equilibrium": True}, [1.0] * 3, "AdaLoss follows losses"),
            (GradientNorm(3), {"equilibrium": True}, [1.0] * 2, r"norms of shape \(3,\), got"),
        ],
    )
    def test_norms_come_where_they_are_followed(self, scheme, options, norms, message):
        balancer = self.make(scheme, **options)
        given = {} if norms is None else {"norms": norms}
        with pytest.raises(ValueError, match=message):
            self.step(balancer, STEPS[0], **given)
        assert balancer.export_state()["step"] == 0
