"""Measures what performance.md in docs/results shows, each part in a process, and prints it.

python -m benchmarks                                   # all parts, on a CPU: half an hour
python -m benchmarks --page docs/results/performance.md        # writes the page
python -m benchmarks --device cuda --parts torch jax   # the same on a GPU, by CUDA events
python -m benchmarks peers --page docs/results/peers.md   # other packages beside ours
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks.performance.page import page
from benchmarks.performance.rows import Row, heard


class Part(NamedTuple):
    """A module that prints rows, and what its process must have."""

    module: str
    environment: dict[str, str] = {}  # noqa: RUF012  # never written to


PARTS = {
    "torch": Part("torch_rows"),
    "jax": Part("jax_rows"),
    "tensorflow": Part("tensorflow_rows"),
    "keras-tensorflow": Part("keras_rows", {"KERAS_BACKEND": "tensorflow"}),
    "keras-jax": Part("keras_rows", {"KERAS_BACKEND": "jax"}),
    "keras-torch": Part("keras_rows", {"KERAS_BACKEND": "torch"}),
    "networks-torch": Part("network_rows", {"LOSS_BALANCE_FRAMEWORK": "torch"}),
    "networks-tensorflow": Part("network_rows", {"LOSS_BALANCE_FRAMEWORK": "tensorflow"}),
    "networks-jax": Part("network_rows", {"LOSS_BALANCE_FRAMEWORK": "jax"}),
    "memory": Part("memory_rows"),
    "core": Part("core_rows"),
}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONUNBUFFERED": "1"}


def run(name: str, options: list[str]) -> Iterator[Row]:
    """The rows of a part, as its process prints them.

    Raises:
        SystemExit: it failed; its errors are on the terminal.
    """
    part = PARTS[name]
    command = [sys.executable, "-m", f"benchmarks.performance.{part.module}", *options]
    environment = os.environ | QUIET | part.environment
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = heard(line)
            if row is not None:
                print(f"{name}: {row.row}, {row.column}: {row.text()}", file=sys.stderr)
                yield row
    if process.returncode:
        raise SystemExit(f"{name} ended with status {process.returncode}")


def main() -> None:
    """The command, or that of its first argument."""
    if sys.argv[1:2] == ["peers"]:
        from benchmarks.peers.command import main as peers  # it needs PyTorch

        peers(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--rounds", type=int, default=30, help="interleaved, of each comparison")
    parser.add_argument("--counts", type=int, nargs="+", help="of losses")
    parser.add_argument("--quick", action="store_true", help="leave out what takes longest")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, default=Path("runs/performance.json"))
    parser.add_argument("--page", type=Path, help="where to; printed if not given")
    given = parser.parse_args()
    options = ["--rounds", str(given.rounds), "--device", given.device]
    if given.counts:
        options += ["--counts", *map(str, given.counts)]
    options += ["--quick"] * given.quick
    rows = [row for name in given.parts for row in run(name, options)]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    text = page(rows, " ".join(["python -m benchmarks", *sys.argv[1:]]))
    if given.page is None:
        print(text)
    else:
        given.page.write_text(text)


if __name__ == "__main__":
    main()
