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


def __getattr__(name: str) -> object:
    """`anytime` and `eann`, which need NumPy, and `__version__`, looked up when asked for."""
    if name in ("anytime", "eann"):
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
    return sorted({*globals(), "anytime", "eann", "__version__"})
