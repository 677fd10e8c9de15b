"""Reference networks: a training step over hand-written ones, and over MSDNet's published code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module

from benchmarks.performance.rows import Options, Row, compared, tell

TABLE = "A training step of the reference networks, over the same layers written by hand"
BASE = "by hand"


def rows(options: Options) -> Iterator[Row]:
    """A column per framework, a row per network."""
    framework = os.environ["LOSS_BALANCE_FRAMEWORK"]
    pairs = import_module(f"benchmarks.plain_{framework}").pairs()
    if framework == "torch":
        import torch

        from benchmarks import published_msdnet

        torch.set_num_threads(1)
        pairs |= published_msdnet.pair()
    for name, (mine, plain) in pairs.items():
        variants = {f"{name}, {BASE}": plain, name: mine}
        rounds = max(3, options.rounds // 3)
        yield from compared(TABLE, framework, variants, f"{name}, {BASE}", rounds, 1)


if __name__ == "__main__":
    tell(rows)
