"""Reference networks: a training step over hand-written ones, and over MSDNet's published code.

    python -m benchmarks.performance.network_rows torch

MSDNet-PyTorch is no package. Where its folder `models` is on PYTHONPATH it joins in:

    git clone https://github.com/kalviny/MSDNet-PyTorch
    PYTHONPATH=MSDNet-PyTorch python -m benchmarks --parts networks-torch
"""

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
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    pairs = import_module(f"benchmarks.plain_{framework}").pairs()
    for name, (mine, plain) in pairs.items():
        variants = {f"{name}, {BASE}": plain, name: mine}
        rounds = max(3, options.rounds // 3)
        yield from compared(TABLE, framework, variants, f"{name}, {BASE}", rounds, 1)


if __name__ == "__main__":
    tell(rows)
