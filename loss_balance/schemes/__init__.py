"""Weight schemes: what every one is, AdaLoss, fixed weights, and the adaptive baselines."""

from loss_balance.schemes.adaloss import AdaLoss, LinearSchedule
from loss_balance.schemes.adaptive import (
    DynamicWeightAverage,
    GradientNorm,
    LogLoss,
    SoftmaxInverse,
    UncertaintyWeighting,
)
from loss_balance.schemes.base import Scheme, State
from loss_balance.schemes.fixed import Constant, HalfEnd, Linear, Single, Static

__all__ = [
    "AdaLoss",
    "Constant",
    "DynamicWeightAverage",
    "GradientNorm",
    "HalfEnd",
    "Linear",
    "LinearSchedule",
    "LogLoss",
    "Scheme",
    "Single",
    "SoftmaxInverse",
    "State",
    "Static",
    "UncertaintyWeighting",
]
