"""A page whose blocks are whole files and commands: they are written and run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
FENCE = re.compile(r"^```(\w+) ([^\n]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> dict[str, str]:
    """The code of a page's blocks by label: a file's name, or what a command is for."""
    return {label: code for _, label, code in FENCE.findall((DOCS / page).read_text())}


def write_files(page: str, folder: Path) -> None:
    """Puts the page's Python files into the folder."""
    for label, code in blocks(page).items():
        if label.endswith(".py"):
            Path(folder, label).write_text(code)


def run(command: str, folder: Path, seconds: float = 240.0) -> str:
    """Runs a command of the page in the folder; what it printed, and an error if it failed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr
