"""The page on speed: that its command runs and fills every table; no figure is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = {
    "core": "numpy",
    "memory": "torch",
    "torch": "torch",
    "jax": "flax",
    "tensorflow": "tensorflow",
    "keras-tensorflow": "tensorflow",
}


@pytest.mark.parametrize("part", NEEDED)
def test_a_part_fills_its_tables(tmp_path, part):
    if find_spec(NEEDED[part]) is None:
        pytest.skip(f"{NEEDED[part]} is not installed here")
    options = ["--parts", part, "--rounds", "3", "--counts", "3", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--json", "rows.json", "--page", "page.md"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    page = (tmp_path / "page.md").read_text()
    for row in rows:
        assert row["low"] <= row["middle"] <= row["high"]
        assert f"\n| {row['row']} |" in page
    assert "{machine}" not in page
    assert "cores of" in page


def test_an_unknown_part_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--parts", "none"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "invalid choice: 'none'" in done.stderr
