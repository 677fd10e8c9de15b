"""Probes of a way in a process of their own: python -m benchmarks.peers.probes NAMES TITLE."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from benchmarks.peers.catalogue import find
from benchmarks.peers.findings import Finding


def of(name: str, title: str) -> Iterator[Finding]:
    """What a probe says of a way."""
    probe: Callable[[Any], Iterator[Finding]]
    probe = import_module(f"benchmarks.peers.probes.{name}").probe
    # The probe of replicas looks it up in each of its processes.
    found = probe(partial(find, title)) if name == "replicas" else probe(find(title))
    for each in found:
        yield replace(each, title=title)


def costs(rounds: int, titles: list[str]) -> Iterator[Finding]:
    """What a step of each costs, in one process, for they take turns."""
    from benchmarks.peers.probes.costs import compared

    yield from compared({title: find(title) for title in titles}, rounds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name, *rest = sys.argv[1:]
    for each in name.split(","):
        for finding in costs(int(rest[0]), rest[1:]) if each == "costs" else of(each, rest[0]):
            print(finding.line(), flush=True)
    sys.stdout.flush()
    os._exit(0)  # some packages leave threads behind
