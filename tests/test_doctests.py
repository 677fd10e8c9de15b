"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("loss_balance", "backends", "reference_models", "experiments")
SHOWING = [
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text() and not any(parent.is_symlink() for parent in path.parents)
]


def dotted(path):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("loss_balance") else f"loss_balance.{name}"


@pytest.mark.parametrize("path", SHOWING, ids=str)
def test_the_examples_in_the_docstrings_are_true(path):
    result = doctest.testmod(importlib.import_module(dotted(path)))  # NumPy is all they need
    assert result.attempted
    assert not result.failed


def test_the_core_shows_examples():
    assert {"deadline.py", "schedules.py", "theory.py", "adaloss.py"} <= {p.name for p in SHOWING}
