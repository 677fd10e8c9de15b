"""python -m benchmarks peers: other packages' balancers beside ours, each probed in processes.

python -m benchmarks peers                          # all of them, on a CPU: ten minutes
python -m benchmarks peers --page docs/results/peers.md     # writes the page
python -m benchmarks peers --page docs/results/peers.md --append docs/results/peers-quality.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.peers.catalogue import LIBRARIES, LIBRARY_OF
from benchmarks.peers.findings import Finding, heard
from benchmarks.peers.page import page, tables

# The probes that share a process: those with processes of their own stand alone, and the compiler,
# which leaves most behind, comes last.
PROCESSES = {
    "alone": "state,bad_batches,operators,lines,graphs",
    "replicas": "replicas",
}
# What is published for other frameworks: a module, and what its process must have.
ELSEWHERE = {
    "tensorflow": [("tensorflow_packages", {"KERAS_BACKEND": "tensorflow"})],
    "keras": [
        ("keras_packages", {"KERAS_BACKEND": backend}) for backend in ("tensorflow", "jax", "torch")
    ],
}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "OMP_NUM_THREADS": "1"}
PATIENCE = 600.0  # seconds for the probes of one way
BASE = "sum(losses)"  # what every cost is a ratio to


def installed() -> Iterator[str]:
    """The titles of the ways whose packages are here, or that need none."""
    for library in LIBRARIES:
        if library.package not in ("", "loss-balance"):
            try:
                version(library.package)
            except PackageNotFoundError:
                continue
        yield from library.titles


def missing(titles: Sequence[str]) -> Iterator[Finding]:
    """A row for each way whose package is not here."""
    here = set(installed())
    for title in titles:
        if title not in here:
            line = LIBRARY_OF[title].install
            yield Finding("Not installed", title, "what would install it", f"`{line}`")


def probed(
    module: str, arguments: Sequence[str], patience: float | None, environment: dict[str, str]
) -> list[Finding]:
    """What a process of probes found, and how it ended if not well."""
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *arguments]
    row = arguments[-1] if arguments else module
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            env=os.environ | QUIET | environment,
        )
    except subprocess.TimeoutExpired:
        return [Finding("Ended early", row, "how", f"not done in {patience:.0f} s")]
    found = [each for each in map(heard, done.stdout.splitlines()) if each is not None]
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        found.append(Finding("Ended early", row, "how", said[0]))
    return found


def measured(titles: Sequence[str], probes: Sequence[str], rounds: int) -> Iterator[Finding]:
    """All findings, as they come."""
    yield from missing(titles)
    here = [title for title in installed() if title in titles]
    for name, shared in PROCESSES.items():
        for title in here if name in probes else ():
            yield from probed("probes", [shared, title], PATIENCE, {})
    if "costs" in probes:
        taken = [BASE, *(title for title in here if title != BASE)]
        yield from probed("probes", ["costs", str(rounds), *taken], None, {})
    for name, runs in ELSEWHERE.items():
        for module, environment in runs if name in probes else ():
            yield from probed(f"probes.{module}", [], PATIENCE, environment)


def merged(old: Sequence[Finding], new: Sequence[Finding]) -> list[Finding]:
    """New cells in the place of old ones, the rest at the end."""
    cells = {(each.table, each.title, each.column): each for each in (*old, *new)}
    return list(cells.values())


def main(arguments: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = [*PROCESSES, "costs", *ELSEWHERE]
    parser.add_argument("--ways", nargs="+", choices=LIBRARY_OF, default=list(LIBRARY_OF))
    parser.add_argument("--probes", nargs="+", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=30, help="interleaved, of the costs")
    parser.add_argument("--json", type=Path, default=Path("runs/peers.json"))
    parser.add_argument(
        "--keep", action="store_true", help="what --json has of other ways and probes stays"
    )
    parser.add_argument("--read", action="store_true", help="the findings from --json: no probes")
    parser.add_argument("--page", type=Path, help="where to; tables are printed in any case")
    parser.add_argument("--append", type=Path, nargs="*", default=[], help="Markdown, at its end")
    given = parser.parse_args(arguments)
    further = [path.read_text() for path in given.append]  # before the minutes of measuring
    findings: list[Finding] = []
    if given.read or given.keep:
        findings = [Finding(**each) for each in json.loads(given.json.read_text())]
    if not given.read:
        new = []
        for finding in measured(given.ways, given.probes, given.rounds):
            print(f"{finding.title}, {finding.column}: {finding.text}", file=sys.stderr)
            new.append(finding)
        findings = merged(findings, new)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(each) for each in findings], indent=1) + "\n")
    for title, text in tables(findings).items():
        print(f"\n{title}\n\n{text}")
    if given.page is not None:
        given.page.write_text(page(findings, further))
