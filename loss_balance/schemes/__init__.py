"""Weight schemes: what every one is, AdaLoss and its kin, fixed weights, adaptive baselines."""

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
from loss_balance.schemes.means import PowerMean, RelativeAdaLoss

__all__ = [
    "AdaLoss",
    "Constant",
    "DynamicWeightAverage",
    "GradientNorm",
    "HalfEnd",
    "Linear",
    "LinearSchedule",
    "LogLoss",
    "PowerMean",
    "RelativeAdaLoss",
    "Scheme",
    "Single",
    "SoftmaxInverse",
    "State",
    "Static",
    "UncertaintyWeighting",
]
