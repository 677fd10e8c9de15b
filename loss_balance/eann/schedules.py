"""Which answer of an ensemble is there at which budget, and which networks make an ensemble.

Source: paper, Section 4 and Appendix A.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from loss_balance.checks import check_count, check_finite, check_increasing, check_range


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


class Schedule(list[Event]):
    """A list of events that is not to be changed, and the used ones of them, which `answer` asks.

    A copy or a slice is a plain list, which `answer` takes too, in linear time.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        super().__init__(events)
        self.used: list[Event] = [event for event in self if event.used]


def schedule(members: Sequence[Sequence[Exit]], workers: int = 1) -> Schedule:
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
    return Schedule(events)


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
    used = events.used if isinstance(events, Schedule) else [e for e in events if e.used]
    ready = bisect_right(used, budget, key=lambda event: event.time)
    return used[ready - 1] if ready else None


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
    """Which networks make a linear ensemble: costs that grow by about `step`, by addition.

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
