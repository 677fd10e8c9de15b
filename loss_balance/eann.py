r"""Exponential ensembles of anytime networks (EANN): which answer is there at which budget.

Source: Hu, Dey, Hebert, Bagnell, "Learning Anytime Predictions in Neural Networks via Adaptive
Loss Balancing", Section 4 and Appendix A. Anytime networks whose costs grow by a factor b run one
after the other; an answer is used if its validation error is below that of all used before.

>>> small, large = [Exit(1, 0.4), Exit(2, 0.3)], [Exit(2, 0.35), Exit(4, 0.2)]
>>> events = schedule([small, large])
>>> [(event.time, event.error, event.used) for event in events]
[(1, 0.4, True), (2, 0.3, True), (4, 0.35, False), (6, 0.2, True)]
>>> answer(events, budget=5)
Event(time=2, member=0, exit=1, error=0.3, used=True)

Baselines take the same functions: `ordinary(members)` has ordinary networks for anytime ones,
`linear(network_costs, step)` networks whose costs grow by addition. `run` executes an ensemble.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loss_balance.answers import check_finite, check_increasing
from loss_balance.base import check_count, check_range
from loss_balance.live import run
from loss_balance.members import Member, Ordinary

__all__ = [
    "Event",
    "Exit",
    "Inflation",
    "Member",
    "Ordinary",
    "answer",
    "cost_inflation",
    "design",
    "linear",
    "ordinary",
    "run",
    "schedule",
]


class Exit(NamedTuple):
    """One exit of one network."""

    cost: float  # from the start of its network up to this answer, in any unit
    error: float  # on a validation set, any measure where less is better


class Event(NamedTuple):
    """An exit's answer becomes ready."""

    time: float  # since the start of the ensemble, in the unit of the costs
    member: int
    exit: int
    error: float
    used: bool  # its error is below that of all used before


class Inflation(NamedTuple):
    """How much more an ensemble computes than a network made for the budget, as a factor."""

    worst: float  # over all budgets; a limit that is never reached
    mean: float  # over budgets spread evenly


def schedule(members: Sequence[Sequence[Exit]], workers: int = 1) -> list[Event]:
    """Every answer of an ensemble in the order of time.

    Networks start first-in-first-out, each as soon as one of the workers is free; with one worker
    that is the end of the network before. Times are sums of the costs and exact where these are
    integers or fractions. Of answers at the same moment that of the earlier member comes first.

    Args:
        members: `members[m][k]`, smallest network and shallowest exit first; pairs will do.
        workers: how many networks run at a time.

    Raises:
        ValueError: no members, a member without exits, costs that do not increase, an error or
            cost that is no finite number.
    """
    check_count("workers", workers)
    if len(members) == 0:
        raise ValueError("members must be one or more networks, got none")
    free = [0] * workers  # when each worker is free again, a heap
    moments = []
    for m, exits in enumerate(members):
        costs, errors = ([_plain(pair[i]) for pair in exits] for i in (0, 1))
        check_increasing(f"costs of member {m}", costs)
        check_finite(f"errors of member {m}", errors)
        begun = heapq.heappop(free)
        moments += [(begun + costs[k], m, k, errors[k]) for k in range(len(costs))]
        heapq.heappush(free, begun + costs[-1])
    best, events = math.inf, []
    for time, m, k, error in sorted(moments):
        events.append(Event(time, m, k, error, used=error < best))
        best = min(best, error)
    return events


def _plain(number: Any) -> Any:
    """NumPy's scalars as Python's, whose integers do not overflow."""
    return number.item() if isinstance(number, np.generic) else number


def answer(events: Sequence[Event], budget: float) -> Event | None:
    """The answer an ensemble has when `budget` is spent, None before its first exit.

    Args:
        events: from `schedule`, all or only the used ones.
        budget: time, in the unit of the costs; an exit ready at that very moment counts.

    Raises:
        ValueError: the budget is NaN.
    """
    if math.isnan(budget):
        raise ValueError(f"budget must be a number, got {budget!r}")
    ready = bisect_right(events, budget, key=lambda event: event.time)
    return next((events[i] for i in range(ready - 1, -1, -1) if events[i].used), None)


def ordinary(members: Sequence[Sequence[Exit]]) -> list[list[Exit]]:
    """The same ensemble of ordinary networks: each answers once, at its end.

    >>> ordinary([[Exit(1, 0.4), Exit(2, 0.3)], [Exit(4, 0.2)]])
    [[Exit(cost=2, error=0.3)], [Exit(cost=4, error=0.2)]]
    """
    return [list(exits[-1:]) for exits in members]


def design(network_costs: Sequence[float], base: float) -> list[int]:
    """Which networks make an exponential ensemble: costs that grow by about `base`.

    From the cheapest to the dearest, so that the first answer comes early and the last one is the
    best there is; between them those for which the squared differences between log(ratio) and
    log(base) add up to least.

    >>> design([7, 9, 13, 17, 25], base=2)  # the paper's ResANNs of 7, 13 and 25 units
    [0, 2, 4]

    Args:
        network_costs: total cost of each network there is, in any order.
        base: above 1. Where networks are as good as those made for the cost from 1/b of their
            depth on, b is the base of the paper's proposition.

    Returns:
        Positions in `network_costs`, smallest network first.
    """
    check_range("base", base, 1.0, open_low=True)
    return _chain(network_costs, lambda low, high: math.log(high / low) - math.log(base))


def linear(network_costs: Sequence[float], step: float) -> list[int]:
    """As `design`, for a linear ensemble: costs that grow by about `step`, by addition.

    >>> linear([10, 18, 20, 30, 45, 50], step=20)
    [0, 3, 5]
    """
    check_range("step", step, 0.0, open_low=True)
    return _chain(network_costs, lambda low, high: (high - low - step) / step)


def _chain(costs: Sequence[float], misfit: Callable[[float, float], float]) -> list[int]:
    """The increasing sequence of costs from least to most whose squared misfits sum to least."""
    check_finite("network_costs", costs)
    if min(costs) <= 0:
        raise ValueError(f"network_costs must be above 0, got {min(costs)}")
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    order = [i for n, i in enumerate(order) if n == 0 or costs[i] > costs[order[n - 1]]]
    best: list[tuple[float, list[int]]] = [(0.0, order[:1])]  # for each end of the sequence
    for n in range(1, len(order)):
        ways = (
            (total + misfit(costs[path[-1]], costs[order[n]]) ** 2, [*path, order[n]])
            for total, path in best
        )
        best.append(min(ways))
    return best[-1][1]


def cost_inflation(base: float, regular: bool = False, workers: int = 1) -> Inflation:
    r"""By what factor an ensemble of networks of cost 1, b, b², ... computes more (Prop. 4.1).

    Each network is as good as the best of cost z from z > 1/b of its own cost on. At budget B the
    ensemble is as good as the best of cost B/C. With one worker and many networks

    .. math::
        \sup C = 2 + \frac{1}{b-1}, \qquad
        E[C] = 1 - \frac{1}{2b} + \frac{1 + \ln b}{b-1}

    and for ordinary networks, which answer at their end only,

    .. math::
        \sup C = \frac{b^2}{b-1}, \qquad
        E[C] = \frac32 + \frac{b-1}{2} + \frac{1}{b-1}.

    For M workers, :math:`s = b / (b^M - 1)` being the time network b starts at:
    :math:`\sup C = 1 + s`, for ordinary networks :math:`b + s`, and

    .. math::
        E[C] = \frac{((1 + s)^2 - (1 + s/b)^2) / 2 + b - 1 + s \ln b}{(b - 1)(1 + s/b)},
        \qquad \text{ordinary: } (1 + s/b)(1 + b)/2.

    The mean is over budgets spread evenly up to the end of a network; up to some other moment it
    is up to 8 % more or less. The paper's text differs in places: both bounds of its Appendix A
    have :math:`+1/(b^{n-1}(b-1))` where it is minus, so C stays below the supremum; the integrand
    of its case 2 is :math:`1 + (b^n-1)/(z(b-1))`; its sum for ordinary networks starts at i = 0;
    and b → b^M for M workers is an upper bound, the values here are exact.

    >>> worst, mean = cost_inflation(2.0)
    >>> worst, round(mean, 6)
    (3.0, 2.443147)

    Args:
        base: b, above 1.
        regular: ordinary networks in place of anytime ones.
        workers: M, first-in-first-out; the budget is then time.
    """
    check_range("base", base, 1.0, open_low=True)
    check_count("workers", workers)
    s = base ** (1 - workers) / (1 - base**-workers)  # this way round nothing overflows
    if regular:
        return Inflation(base + s, (1 + s / base) * (1 + base) / 2)
    area = ((1 + s) ** 2 - (1 + s / base) ** 2) / 2 + base - 1 + s * math.log(base)
    return Inflation(1 + s, area / ((base - 1) * (1 + s / base)))
