"""State: does a run that was saved and loaded go on as the one that was not interrupted?"""

from __future__ import annotations

import io
from collections.abc import Iterator

import torch

from benchmarks.peers.findings import Finding, failed, percent
from benchmarks.peers.interface import Way
from benchmarks.peers.problem import batches
from benchmarks.peers.training import Run, apart

TABLE = "What is kept"
COLUMN = "a saved run goes on as it was"
BEFORE, AFTER = 30, 25  # steps: three epochs, and what comes after them


def kept(kind: type[Way]) -> Finding:
    """One cell: yes, bit for bit, or how far the networks are from each other."""
    every = batches(BEFORE + AFTER)
    run = Run(kind)
    for batch in every[:BEFORE]:
        run.step(batch)
    file = io.BytesIO()
    state = run.way.state_dict()
    held = {"net": run.net.state_dict(), "optimizer": run.optimizer.state_dict(), "way": state}
    torch.save(held, file)
    again = Run(kind, seed=1)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    again.net.load_state_dict(loaded["net"])
    again.optimizer.load_state_dict(loaded["optimizer"])
    again.way.load_state_dict(loaded["way"])
    again.steps = BEFORE
    for each in (run, again):
        torch.manual_seed(3)  # a loop that resumes restores the generator too
        for batch in every[BEFORE:]:
            each.step(batch)
    value = apart(again.parameters(), run.parameters())
    if torch.equal(again.parameters(), run.parameters()):
        return Finding(TABLE, "", COLUMN, "yes", value)
    why = "" if state else "nothing to save; "
    return Finding(TABLE, "", COLUMN, f"no: {why}network {percent(value)} off", value)


def probe(kind: type[Way]) -> Iterator[Finding]:
    """One cell."""
    try:
        yield kept(kind)
    except Exception as error:  # of any package, of any kind: that is the finding
        yield Finding(TABLE, "", COLUMN, failed(error))
