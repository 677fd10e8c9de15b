"""Balance many losses: AdaLoss and its peers, with one formula for every framework."""

from importlib.metadata import PackageNotFoundError, version

from loss_balance.adaloss import AdaLoss, LinearSchedule
from loss_balance.schemes import Constant, HalfEnd, Linear, Scheme, Single, State, Static

try:
    __version__ = version("loss-balance")
except PackageNotFoundError:  # a plain checkout that was never installed
    __version__ = "0+unknown"

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
