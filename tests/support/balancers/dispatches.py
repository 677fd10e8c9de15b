"""Which operators of PyTorch reach the device; needs torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))  # last: the installed package stays the one tested
from benchmarks.dispatches import SYNCS, Dispatches

__all__ = ["SYNCS", "Dispatches"]
