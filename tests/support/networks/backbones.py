"""Networks that others wrote: timm's and torchvision's."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import pytest

_libraries = []  # a library's operators live as long as it


def foreign(name):
    """The module, of `timm` or `torchvision`; skips where it is not here.

    A torchvision beside another PyTorch than it was built for lacks its compiled operators, which
    no network needs, and does not import until somebody has declared them.
    """
    torch = pytest.importorskip("torch")
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        _absent(name)
    except RuntimeError:
        for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _libraries.append(library)
        import_module("torchvision")
    try:
        return import_module(name)
    except ModuleNotFoundError:
        _absent(name)


def _absent(name):
    if "LOSS_BALANCE_FOREIGN" in os.environ:
        pytest.fail(f"{name} must be installed here")
    pytest.skip(f"{name} is not installed here")
