"""What an ensemble of trained networks answers at each budget, beside its members and baselines.

Which answers are used is decided by the error on held-out training images; what is reported is the
error on the test images, which had no part in training or in that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from loss_balance import eann
from loss_balance.experiments.errors import UserError

Unit = Literal["multiply_adds", "milliseconds"]
UNITS: tuple[Unit, ...] = ("multiply_adds", "milliseconds")
PredictorKind = Literal["eann", "linear", "single", "opt"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trained network: cumulative costs and errors of its exits, shallowest first."""

    run: str  # its folder
    network: str
    scheme: str
    multiply_adds: tuple[float, ...]
    milliseconds: tuple[float, ...]
    validation_error: tuple[float, ...]
    test_error: tuple[float, ...]

    def costs(self, unit: Unit) -> tuple[float, ...]:
        """Costs up to each exit."""
        costs: tuple[float, ...] = getattr(self, unit)
        return costs

    def exits(self, unit: Unit) -> list[eann.Exit]:
        """The exits as `eann.schedule` takes them."""
        return [
            eann.Exit(*pair) for pair in zip(self.costs(unit), self.validation_error, strict=True)
        ]


@dataclass(frozen=True)
class UsedAnswer:
    """An answer that is used from `cost` on."""

    cost: float  # since the start
    member: int
    exit: int
    validation_error: float
    test_error: float


@dataclass(frozen=True)
class Predictor:
    """An anytime predictor: networks run one after the other, an ensemble or a single one."""

    name: str
    kind: PredictorKind
    members: tuple[Measured, ...]

    def answers(self, unit: Unit) -> list[UsedAnswer]:
        """The used answers in the order of time (paper, Section 4)."""
        events = eann.schedule([member.exits(unit) for member in self.members])
        return [
            UsedAnswer(e.time, e.member, e.exit, e.error, self.members[e.member].test_error[e.exit])
            for e in events
            if e.used
        ]

    def total(self, unit: Unit) -> float:
        """Cost of all members."""
        return sum(member.costs(unit)[-1] for member in self.members)

    @property
    def ratios(self) -> list[float]:
        """The factors by which the members' multiply-adds grow from one to the next."""
        costs = [member.multiply_adds[-1] for member in self.members]
        return [after / before for before, after in pairwise(costs)]

    @property
    def base(self) -> float:
        """The factor of the same growth, were it even."""
        return float(np.prod(self.ratios) ** (1 / len(self.ratios)))


class MeasuredInflation(NamedTuple):
    """The factor by which an ensemble costs more than the cheapest network that errs as little."""

    worst: float
    mean: float  # over the test errors that the ensemble reaches


@dataclass(frozen=True)
class Combined:
    """Everything that one set of runs gives."""

    ensembles: tuple[Predictor, ...]
    singles: tuple[Predictor, ...]  # each anytime network alone
    linear: Predictor
    opt: Predictor | None  # the cheapest ordinary network of each error: one per budget
    networks: tuple[Measured, ...]

    @property
    def curves(self) -> tuple[Predictor, ...]:
        """All predictors, ensembles first."""
        opt = () if self.opt is None else (self.opt,)
        return (*self.ensembles, *self.singles, self.linear, *opt)

    def named(self, name: str) -> Predictor:
        """The curve of that name."""
        return next(curve for curve in self.curves if curve.name == name)

    @property
    def linear_is_new(self) -> bool:
        """Whether the linear ensemble has other networks than the exponential ones."""
        return self.linear.members[0].scheme == "opt"

    def inflation(self, ensemble: Predictor, unit: Unit) -> MeasuredInflation:
        """Measured at each test error that the ensemble is the first time below.

        The ensemble's cost by then, over that of the cheapest single network, anytime or ordinary,
        of any scheme, which errs as little.
        """
        factors, best = [], np.inf
        for answer in ensemble.answers(unit):
            if answer.test_error < best:
                best = answer.test_error
                factors.append(answer.cost / self._cheapest(best, unit))
        return MeasuredInflation(max(factors), float(np.mean(factors)))

    def _cheapest(self, error: float, unit: Unit) -> float:
        return min(
            cost
            for network in self.networks
            for cost, reached in zip(network.costs(unit), network.test_error, strict=True)
            if reached <= error
        )

    def error_at(self, curve: Predictor, budget: float, unit: Unit) -> float | None:
        """Test error of the answer at that budget, None before the first."""
        there = [answer for answer in curve.answers(unit) if answer.cost <= budget]
        return there[-1].test_error if there else None

    def span(self, unit: Unit) -> tuple[float, float]:
        """The budgets from where every curve has an answer to the end of the first ensemble.

        Of curves that begin within its first half: what comes later is no rival.
        """
        end = self.ensembles[0].total(unit)
        first = [curve.answers(unit)[0].cost for curve in self.curves]
        return max(cost for cost in first if cost <= end / 2), end

    def mean_error(self, curve: Predictor, unit: Unit) -> float | None:
        """Mean test error over budgets spread evenly over `span`, None if it begins later."""
        begin, end = self.span(unit)
        answers = [answer for answer in curve.answers(unit) if answer.cost < end]
        if not answers or answers[0].cost > begin:
            return None
        times = np.clip([*(answer.cost for answer in answers), end], begin, end)
        errors = [answer.test_error for answer in answers]
        return float(np.dot(np.diff(times), errors) / (end - begin))


def combine(networks: Sequence[Measured]) -> Combined:
    """An exponential ensemble per scheme, its members alone, a linear ensemble, and OPT.

    Networks of one exit are ordinary ones, trained for their end alone: together they are OPT. The
    linear ensemble is made of them, as those that the paper compares with (Fig. 5b); without at
    least two, of the ends of the first ensemble's networks.

    Raises:
        UserError: no scheme has two anytime networks, or two of one scheme cost the same.
    """
    ordered = sorted(networks, key=lambda network: network.multiply_adds[-1])
    anytime = [network for network in ordered if len(network.multiply_adds) > 1]
    ordinary = [_ended(network) for network in ordered if len(network.multiply_adds) == 1]
    schemes = {n.scheme: [m for m in anytime if m.scheme == n.scheme] for n in anytime}
    for scheme, members in (*schemes.items(), ("opt", ordinary)):
        _check_growth(scheme, members)
    ensembles = tuple(
        Predictor(f"EANN, {scheme}", "eann", tuple(members))
        for scheme, members in sorted(schemes.items(), key=lambda item: item[0] != "adaloss")
        if len(members) > 1
    )
    if not ensembles:
        raise UserError(
            "an ensemble needs two or more anytime networks trained with the same scheme, got "
            + (", ".join(f"{n.network} ({n.scheme})" for n in anytime) or "none")
        )
    singles = tuple(Predictor(f"{n.network}, {n.scheme}", "single", (n,)) for n in anytime)
    ends = ordinary if len(ordinary) > 1 else [_ended(n) for n in ensembles[0].members]
    costs = [network.multiply_adds[-1] for network in ends]
    chosen = eann.linear(costs, step=costs[0])
    linear = Predictor("linear ensemble", "linear", tuple(ends[i] for i in chosen))
    opt = Predictor("OPT", "opt", (_one_for_each_budget(ordinary),)) if ordinary else None
    return Combined(ensembles, singles, linear, opt, tuple(ordered))


def _check_growth(scheme: str, members: Sequence[Measured]) -> None:
    for small, large in pairwise(members):
        if small.multiply_adds[-1] == large.multiply_adds[-1]:
            raise UserError(
                f"the networks of an ensemble must differ in cost, got {small.run} and {large.run} "
                f"({small.network} and {large.network}, both {scheme})"
            )


def _ended(network: Measured) -> Measured:
    """A network's last exit alone."""
    fields: dict[str, Any] = {
        name: getattr(network, name)[-1:]
        for name in ("multiply_adds", "milliseconds", "validation_error", "test_error")
    }
    return Measured(run=network.run, network=network.network, scheme=network.scheme, **fields)


def _one_for_each_budget(ordinary: Sequence[Measured]) -> Measured:
    """Ordinary networks as if they were the exits of one: at each budget the one made for it."""
    return Measured(
        run="opt",
        network="opt",
        scheme="opt",
        multiply_adds=tuple(network.multiply_adds[0] for network in ordinary),
        milliseconds=tuple(sorted(network.milliseconds[0] for network in ordinary)),
        validation_error=tuple(network.validation_error[0] for network in ordinary),
        test_error=tuple(network.test_error[0] for network in ordinary),
    )
