"""The wheel holds the four folders as one package, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "loss_balance": "loss_balance",
    "backends": "loss_balance/backends",
    "reference_models": "loss_balance/reference_models",
    "experiments": "loss_balance/experiments",
}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files in a wheel built from a copy of this checkout."""
    here = tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        skip = shutil.ignore_patterns("__pycache__", *set(FOLDERS) - {folder})
        shutil.copytree(ROOT / folder, here / folder, ignore=skip)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, here)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(command, cwd=here, check=True, capture_output=True)
    (wheel,) = here.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_has_one_top_level_package(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"loss_balance"}


def test_it_holds_every_module_of_the_four_folders(names):
    expected = {
        f"{package}/{file.name}"
        for folder, package in FOLDERS.items()
        for file in (ROOT / folder).iterdir()
        if file.suffix in {".py", ".j2"} or file.name == "py.typed"
    }
    assert len(expected) > 15
    assert {name for name in names if not name.split("/")[0].endswith(".dist-info")} == expected
