"""What an exponential ensemble costs in theory (paper, Proposition 4.1 and Appendix A)."""

from __future__ import annotations

import math
from typing import NamedTuple

from loss_balance.checks import check_count, check_range


class Inflation(NamedTuple):
    """How much more an ensemble computes than a network made for the budget, as a factor."""

    worst: float  # over all budgets; a limit that is never reached
    mean: float  # over budgets spread evenly


def cost_inflation(base: float, regular: bool = False, workers: int = 1) -> Inflation:
    r"""The factor by which networks of cost 1, b, b², ... compute more (Prop. 4.1).

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
