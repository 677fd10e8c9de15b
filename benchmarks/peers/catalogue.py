"""Which packages are looked at, how each is installed, and where its ways are."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from benchmarks.peers.interface import Way


class Library(NamedTuple):
    """A package, its adapter, and the titles of its ways."""

    package: str  # by which it is known to pip; empty for none
    module: str
    install: str
    titles: tuple[str, ...]


# Those with --no-deps ask for versions, or for packages, that what is called here does not need.
LIBRARIES = (
    Library("", "ours", "", ("sum(losses)",)),
    Library(
        "loss-balance",
        "ours",
        "pip install loss-balance[torch]",
        (
            "Balancer(AdaLoss)",
            "Balancer(UncertaintyWeighting)",
            "Balancer(SoftmaxInverse)",
            "Balancer(LogLoss)",
            "Balancer(DynamicWeightAverage)",
        ),
    ),
    Library(
        "torchjd",
        "torchjd",
        "pip install torchjd",
        tuple(f"torchjd {name}" for name in ("GeometricMean", "UW", "IMTLL", "DWA", "FAMO")),
    ),
    Library(
        "LibMTL",
        "libmtl",
        "pip install --no-deps LibMTL",
        tuple(f"LibMTL {name}" for name in ("EW", "UW", "GLS", "RLW", "DWA", "GradNorm")),
    ),
    Library("", "automatic", "", ("AutomaticWeightedLoss-style",)),
    Library(
        "audiocraft",
        "audiocraft",
        "pip install --no-deps audiocraft flashy dora-search colorlog treetable retrying submitit"
        " omegaconf",
        ("audiocraft (EnCodec) Balancer",),
    ),
    Library(
        "gradnorm-pytorch",
        "gradnorm",
        "pip install gradnorm-pytorch",
        ("gradnorm-pytorch",),
    ),
    Library("softadaptx", "softadaptx", "pip install softadaptx", ("softadaptx SoftAdapt",)),
)
# For other frameworks, with probes of their own.
ELSEWHERE = {
    "softadapt": "pip install softadapt",
    "loss-balancer-tf": "pip install --no-deps loss-balancer-tf",
}
LIBRARY_OF = {title: library for library in LIBRARIES for title in library.titles}


def find(title: str) -> type[Way]:
    """The way of that title: a class, called with the number of losses and the shared parameters.

    Raises:
        ImportError: its package is not installed.
        KeyError: there is none of that title.
    """
    adapter = import_module(f"benchmarks.peers.adapters.{LIBRARY_OF[title].module}")
    way: type[Way] = adapter.WAYS[title]
    return way
