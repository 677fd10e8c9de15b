"""Running what stands in `benchmarks/gpu`, from the checkout and as on a GPU machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a GPU machine lacks, or has in a version that nobody knows.
MISSING = ("typer", "torchjd", "timm", "tensorflow", "keras", "grain", "pooch")


def checkout_python(tmp_path):
    """Runs Python in `tmp_path`, from the checkout and without the missing packages."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in MISSING:
        (blocked / f"{name}.py").write_text("raise ModuleNotFoundError('not there')\n")
    path = os.pathsep.join(map(str, (blocked, tmp_path, ROOT)))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LOSS_BALANCE_REQUIRE": ""}

    def run(*arguments):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode in (0, 1), done.stderr
        return done

    return run
