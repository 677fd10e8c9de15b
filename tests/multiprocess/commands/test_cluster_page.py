"""docs/distributed/cluster.md: what it shows runs, and the options that it names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")

PAGE = (Path(__file__).parents[3] / "docs" / "distributed" / "cluster.md").read_text()
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = {kind: [code for k, code in FENCE.findall(PAGE) if k == kind] for kind in ("python", "sh")}
HERE = [code for code in BLOCKS["python"] if "LocalCluster" in code]
ELSEWHERE = [code for code in BLOCKS["python"] if code not in HERE]  # no such cluster is at hand


def python(*arguments):
    """What such a process prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_ensemble_over_dask_answers_what_the_page_says(tmp_path):
    (code,) = HERE
    (tmp_path / "page.py").write_text(code)
    printed, complaint = python(str(tmp_path / "page.py"))
    (said,) = re.findall(r"print\(prediction.value\)  # (.*)", code)
    assert printed.strip() == said
    assert complaint == ""


@pytest.mark.parametrize("code", ELSEWHERE)
def test_what_needs_another_cluster_is_python(code):
    compile(code, "cluster.md", "exec")


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
def test_dask_knows_the_options_of_its_commands(kind):
    lines = [line.partition("#")[0] for code in BLOCKS["sh"] for line in code.splitlines()]
    named = {o for line in lines if f"dask {kind}" in line for o in re.findall(r"--[\w-]+", line)}
    known = set(re.findall(r"--[\w-]+", python("-m", f"distributed.cli.dask_{kind}", "--help")[0]))
    assert named
    assert named <= known


def test_the_numbers_of_the_page_are_those_of_the_code():
    from dask import config

    from loss_balance.experiments.runs.cluster.worker import LEASE

    assert f"no sign of life for {LEASE:.0f} seconds" in PAGE
    assert f"`allowed-failures` ({config.get('distributed.scheduler.allowed-failures')})" in PAGE
    assert config.get("distributed.scheduler.worker-ttl") == "5 minutes"
