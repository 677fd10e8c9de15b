"""The blocks of docs/guides/training-loop.md: ```` ```python FRAMEWORK NAME ````, run as they stand."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from support.docs.pages import DOCS, fences

PAGE = DOCS / "guides" / "training-loop.md"
FENCES = fences(PAGE.name)
BLOCKS = {tuple(label.split()): code for _, label, code in FENCES}


def need(library: str) -> None:
    """Skips the test without that library, unless this environment must have it."""
    if library in os.environ.get("LOSS_BALANCE_LOOPS", "").split(","):
        importlib.import_module(library)
    pytest.importorskip(library)


def begin(framework: str) -> ModuleType:
    """A module in which the set-up of the framework has run, if it has one.

    It is known to Python by its name, for Transformers looks for the module of a class.
    """
    module = ModuleType("training_loop")
    module.__file__ = str(PAGE)
    sys.modules[module.__name__] = module
    if (framework, "setup") in BLOCKS:
        go_on(module, framework, "setup")
    return module


def go_on(module: ModuleType, framework: str, name: str, **given: Any) -> Any:
    """Runs a block in `module`, in which `given` are defined too, and returns the module."""
    vars(module).update(given)
    exec(compile(BLOCKS[framework, name], f"{PAGE.name}: {name}", "exec"), vars(module))
    return module


def run(framework: str, name: str, **given: Any) -> Any:
    """The module after the set-up and the block."""
    return go_on(begin(framework), framework, name, **given)
