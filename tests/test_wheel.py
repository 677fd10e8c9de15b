"""The wheel holds the four folders as one package, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("loss_balance", "backends", "reference_models", "experiments")


def inside(path: Path) -> str:
    """Where a file of the checkout is in the wheel."""
    place = path.relative_to(ROOT).as_posix()
    return place if place.startswith("loss_balance/") else f"loss_balance/{place}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what the wheel is made of, without the links; with a package no one listed."""
    here = tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        skip = shutil.ignore_patterns("__pycache__", *set(FOLDERS) - {folder})
        shutil.copytree(ROOT / folder, here / folder, ignore=skip)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, here)
    for folder in FOLDERS:
        new = here / folder / "new_room" / "deeper"
        new.mkdir(parents=True)
        (new.parent / "__init__.py").touch()
        (new / "__init__.py").touch()
    return here


@pytest.fixture(scope="module")
def names(copy):
    """The files in the wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_has_one_top_level_package(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"loss_balance"}


def test_it_holds_every_file_at_any_depth_and_no_other(names):
    expected = {
        inside(path)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "loss_balance/experiments/pages/templates/base.html.j2" in expected
    assert "loss_balance/py.typed" in expected
    rooms = {
        f"loss_balance/{folder}/new_room/{place}__init__.py".replace(
            "loss_balance/loss_balance", "loss_balance"
        )
        for folder in FOLDERS
        for place in ("", "deeper/")
    }
    held = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert held == expected | rooms
