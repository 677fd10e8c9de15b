"""A page whose blocks are whole files and commands: they are written and run as they stand."""

from __future__ import annotations

import os
import re
import signal
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


# Of C++, when a thread is destroyed that nobody waited for; seen once, of PyTorch's, under load.
AT_EXIT = "terminate called without an active exception"


def run(command: str, folder: Path, seconds: float = 240.0) -> str:
    """Runs a command of the page in the folder; what it printed, and an error if it failed.

    Once more where PyTorch's threads were what failed: the pages' scripts go on from their files.
    """
    status, printed = _run(command, folder, seconds)
    if status and AT_EXIT in printed:
        status, printed = _run(command, folder, seconds)
    assert status == 0, f"{command}\n{printed[-4000:]}"
    return printed


def _run(command: str, folder: Path, seconds: float) -> tuple[int, str]:
    """In a session of its own, so that none of its processes outlives a test that gives up."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-ec", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # which torchrun hands on to its ranks
        process.communicate(timeout=60.0)
        raise
    return process.returncode, printed
