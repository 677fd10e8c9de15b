"""`benchmarks/gpu.sh` and its checks, as far as a CPU can stand in for a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from support.gpu_tools import ROOT, checkout_python


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_checks_pass_on_a_cpu_and_name_what_they_skip(tmp_path, framework):
    for module in (framework, "sklearn") if framework == "torch" else ("jax", "flax", "orbax"):
        pytest.importorskip(module)
    python = checkout_python(tmp_path)
    python(
        *("-m", "benchmarks.gpu.checks", "--out", "out", "--device", "cpu", "--smallest"),
        *("--seconds", "400", "--frameworks", framework),
    )
    found = json.loads((tmp_path / "out" / "checks.json").read_text())
    assert found["failed"] == []
    (counts,) = found["rows"]
    assert counts["passed"] >= 5
    skipped = [one["why"] for one in found["skipped"]]
    assert len(skipped) == counts["skipped"]
    if framework == "torch":
        assert {"needs CUDA"} == set(skipped)


PARTS = {
    "checks": "raise SystemExit(1)",
    "balance": "import json; json.dump({}, open(out / 'seen.json', 'w'))",
    "networks": "import os; os.abort()",
    "paper": "print('kept' if (out / 'earlier').exists() else 'new'); (out / 'earlier').touch()",
}
HEAD = "import sys, pathlib; out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"


@pytest.fixture
def call(tmp_path):
    """Calls gpu.sh in a checkout whose parts are stand-ins."""
    folder = tmp_path / "checkout" / "benchmarks"
    shutil.copytree(ROOT / "benchmarks" / "gpu", folder / "gpu")
    shutil.copy(ROOT / "benchmarks" / "gpu.sh", folder)
    for part, does in PARTS.items():
        (folder / "gpu" / f"{part}.py").write_text(HEAD + does)

    def call(*arguments, **variables):
        path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "OUT": str(tmp_path / "out")} | variables
        command = ["bash", str(folder / "gpu.sh"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        with tarfile.open(tmp_path / "out" / "gpu.tar") as archive:
            names = {os.path.basename(name) for name in archive.getnames()}
        return done, names

    return call


def test_each_part_runs_whatever_became_of_the_one_before(call, tmp_path):
    done, names = call("all")
    assert done.returncode == 1
    assert {"checks.log", "balance.log", "networks.log", "paper.log", "seen.json"} <= names
    page = (tmp_path / "out" / "summary.md").read_text()
    for part, status in (("checks", "failures"), ("balance", "all well"), ("paper", "all well")):
        assert f"| {part} | {status} |" in page
    assert "| networks | status 134 |" in page
    assert sorted(os.listdir(tmp_path / "out")) == ["gpu.tar", "summary.md"]


def test_a_later_call_goes_on_from_the_tar_of_a_former_one(call, tmp_path):
    done, _ = call("paper")
    assert done.returncode == 0
    shutil.move(tmp_path / "out" / "gpu.tar", tmp_path / "former.tar")
    call("paper", GPU_CONTINUE=str(tmp_path / "former.tar"))
    with tarfile.open(tmp_path / "out" / "gpu.tar") as archive:
        assert archive.extractfile("./paper.log").read() == b"kept\n"


def test_an_unknown_part_is_refused(call, tmp_path):
    (tmp_path / "out").mkdir()
    with tarfile.open(tmp_path / "out" / "gpu.tar", "w"):
        pass
    done, _ = call("everything")
    assert done.returncode == 2
    assert "benchmarks/gpu.sh [checks|balance|networks|paper|all]" in done.stdout
