"""The best answer of an anytime network by a deadline, for one input or a batch.

::

    net = AnytimeNet(families.resann(9, 32))
    prediction = predict(net.anytime(images), deadline=0.05)

Several networks under one deadline are in `loss_balance.eann`.
"""

from loss_balance.anytime.answers import ready
from loss_balance.anytime.batches import (
    EarlyExits,
    Thresholds,
    budgeted_thresholds,
    early_exit,
    top_probability,
)
from loss_balance.anytime.deadline import calibrate, predict
from loss_balance.anytime.driving import Prediction

__all__ = [
    "EarlyExits",
    "Prediction",
    "Thresholds",
    "budgeted_thresholds",
    "calibrate",
    "early_exit",
    "predict",
    "ready",
    "top_probability",
]
