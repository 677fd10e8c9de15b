"""Schemes by import path whose steps tests can slow down, and one that ends its process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from loss_balance import AdaLoss, Constant

BRAKE = "LOSS_BALANCE_TEST_BRAKE"  # names a file with the seconds that a step takes at least


def braked():
    file = Path(os.environ.get(BRAKE, ""))
    if file.is_file():
        time.sleep(float(file.read_text() or 0))  # the step's length is what is tested with


class Slow(AdaLoss):
    def update(self, *args, **options):
        braked()
        return super().update(*args, **options)


class Slower(Constant):
    def update(self, *args, **options):
        braked()
        return super().update(*args, **options)


class Deadly(Constant):
    def update(self, *args, **options):
        os.kill(os.getpid(), signal.SIGKILL)
        return super().update(*args, **options)
