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

from loss_balance.eann.live import run
from loss_balance.eann.members import Member, Ordinary
from loss_balance.eann.schedules import Event, Exit, answer, design, linear, ordinary, schedule
from loss_balance.eann.theory import Inflation, cost_inflation

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
