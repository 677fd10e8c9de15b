"""Balance many losses: AdaLoss and its peers, with one formula for every framework."""

from loss_balance.schemes import AdaLoss, LinearSchedule, Scheme, State
from loss_balance.schemes.adaptive import (
    DynamicWeightAverage,
    LogLoss,
    SoftmaxInverse,
    UncertaintyWeighting,
)
from loss_balance.schemes.fixed import Constant, HalfEnd, Linear, Single, Static

__all__ = [
    "AdaLoss",
    "Constant",
    "DynamicWeightAverage",
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


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: the look-up takes longer than the whole import."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("loss-balance")
    except PackageNotFoundError:  # a plain checkout that was never installed
        return "0+unknown"
