"""The plan of the house, read off the code's own imports: arrows run down, and no room is full."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("loss_balance", "backends", "reference_models", "experiments")
# From the top floor down; what stands in one line may not import from another of that line.
FLOORS = """
loss_balance.__main__ experiments.__main__
experiments.cli
experiments.commands
experiments.paper
experiments.pages
experiments.studies experiments.verification experiments.serving
experiments.runs
experiments.training
experiments.data
experiments.errors experiments.terminal
backends.tensorflow reference_models.tensorflow reference_models.weights reference_models.onnx
backends.keras
backends.torch backends.jax backends.numpy
reference_models.torch reference_models.jax reference_models.keras
reference_models.counting
backends.state
backends.identity
backends.fields backends.interface backends.keras_bases backends.logged
reference_models.exports
reference_models.families
reference_models.published
reference_models.description
loss_balance.eann
loss_balance.anytime
loss_balance
loss_balance.equilibrium
loss_balance.schemes
loss_balance.checks loss_balance.extras
"""
FLOOR_OF = {room: number for number, line in enumerate(FLOORS.split("\n")) for room in line.split()}
MOST = 16  # modules in a folder, its face among them


def modules():
    """(dotted name, path) of every module of the four folders, links left out."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT).with_suffix("")
            if not any(parent.is_symlink() for parent in path.parents):
                yield ".".join(inner.parts).removesuffix(".__init__"), path


NAMES = dict(modules())


def imported_by(path):
    """The modules of this project that a module imports: at its top, in a function, in a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from known(whole) or known(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from known(alias.name)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("loss_balance."):
            yield from known(str(node.value).rstrip("."))  # of an f-string its beginning


def known(dotted):
    """The name as this file has it, if it is one of the project's modules."""
    for name in (dotted, dotted.removeprefix("loss_balance.")):
        if name in NAMES:
            return [name]
    return []


def room(name):
    """The folder that a module is in, or itself where it is at the top of one of the four."""
    *_, last = [".".join(name.split(".")[:n]) for n in (1, 2) if n <= len(name.split("."))]
    return last


ARROWS = {
    (name, target)
    for name, path in NAMES.items()
    for target in imported_by(path)
    if target not in (name, *FOLDERS[1:])  # the faces of those three are empty
}


def test_every_room_is_on_a_floor():
    assert {room(name) for name in NAMES} - set(FOLDERS[1:]) == set(FLOOR_OF)
    for folder in FOLDERS[1:]:
        assert not list(imported_by(NAMES[folder]))


def test_arrows_run_down():
    between = {(room(a), room(b)) for a, b in ARROWS if room(a) != room(b)}
    assert len(between) > 50
    rising = [(a, b) for a, b in sorted(between) if not FLOOR_OF[a] < FLOOR_OF[b]]
    assert not rising


def test_no_module_comes_back_to_itself():
    graph = {name: {b for a, b in ARROWS if a == name} for name in NAMES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(NAMES)  # or a CycleError


@pytest.mark.parametrize("folder", sorted({path.parent for path in NAMES.values()}))
def test_no_room_is_full(folder):
    assert len(list(folder.glob("*.py"))) <= MOST


def test_no_folder_of_the_tests_stands_for_a_library():
    """`tests` is on the path: where a library is absent, a folder of its name would be imported."""
    files = [path for path in ROOT.glob("[!.]*/**/*.py") if "build" not in path.parts]
    text = "\n".join(path.read_text() for path in files)
    for folder in (path.name for path in ROOT.glob("tests/*/") if not (ROOT / path.name).exists()):
        for wanted in (rf"^\s*import {folder}\b", rf'importorskip\("{folder}"'):
            assert folder == "support" or not re.search(wanted, text, re.MULTILINE), folder


def test_imports_in_functions_and_strings_are_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "from loss_balance import AdaLoss\n"
        "def f():\n"
        "    from loss_balance.experiments import cli\n"
        "    import_module(f'loss_balance.experiments.commands.{x}')\n"
        "    import_module('loss_balance.backends.torch').Balancer\n"
    )
    seen = {"loss_balance", "experiments.cli", "experiments.commands", "backends.torch"}
    assert set(imported_by(file)) == seen
