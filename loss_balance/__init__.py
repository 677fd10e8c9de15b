"""Balance many losses: AdaLoss and its peers, with one formula for every framework."""

from loss_balance.adaloss import AdaLoss, LinearSchedule
from loss_balance.schemes import Constant, HalfEnd, Linear, Scheme, Single, State, Static

__all__ = [
    "AdaLoss",
    "Constant",
    "HalfEnd",
    "Linear",
    "LinearSchedule",
    "Scheme",
    "Single",
    "State",
    "Static",
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
