"""The named blocks of docs/guides: ```` ```python FRAMEWORK NAME ````, run as they stand."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from support.docs.pages import DOCS, blocks_of

OTHERS = {"integrations.md"}  # tests/integrations runs its blocks
GUIDES = sorted(p for p in (DOCS / "guides").glob("*.md") if p.name not in OTHERS)
FENCES = [
    (path, *block.label.split(), block.code)
    for path in GUIDES
    for block in blocks_of(path)
    if block.language == "python" and len(block.label.split()) == 2
]
BLOCKS = {(framework, name): code for _, framework, name, code in FENCES}


def need(library: str) -> None:
    """Skips the test without that library, unless this environment must have it."""
    if library in os.environ.get("LOSS_BALANCE_LOOPS", "").split(","):
        importlib.import_module(library)
    pytest.importorskip(library)


def begin(framework: str) -> ModuleType:
    """A module in which the set-up of the framework has run, if it has one.

    It is known to Python by its name, for Transformers looks for the module of a class.
    """
    module = ModuleType("guide")
    module.__file__ = str(DOCS)
    sys.modules[module.__name__] = module
    if (framework, "setup") in BLOCKS:
        go_on(module, framework, "setup")
    return module


def go_on(module: ModuleType, framework: str, name: str, **given: Any) -> Any:
    """Runs a block in `module`, in which `given` are defined too, and returns the module."""
    vars(module).update(given)
    exec(compile(BLOCKS[framework, name], f"{framework} {name}", "exec"), vars(module))
    return module


def run(framework: str, name: str, **given: Any) -> Any:
    """The module after the set-up and the block."""
    return go_on(begin(framework), framework, name, **given)
