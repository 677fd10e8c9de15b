"""Balance many losses: AdaLoss and its peers, with one formula for every framework."""

from loss_balance.schemes import AdaLoss, LinearSchedule, Scheme, State
from loss_balance.schemes.adaptive import (
    DynamicWeightAverage,
    GradientNorm,
    LogLoss,
    SoftmaxInverse,
    UncertaintyWeighting,
)
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

PARTS = ("anytime", "eann", "equilibrium")  # imported when asked for


def __getattr__(name: str) -> object:
    """The parts of the package and `__version__`, looked up when asked for."""
    if name in PARTS:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("loss-balance")
    except PackageNotFoundError:  # a plain checkout that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *PARTS, "__version__"})
