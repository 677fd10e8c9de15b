"""Every framework in a process of its own: two in one process can abort the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import FRAMEWORKS

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "KERAS_BACKEND": "tensorflow",
    "JAX_ENABLE_X64": "1",
}


def installed() -> list[str]:
    """The frameworks at hand."""
    return [name for name in ("numpy", *FRAMEWORKS) if find_spec(name) is not None]


def run_each(module: str, frameworks: Iterable[str], *arguments: str) -> dict[str, str]:
    """What `run_module` gives for each framework; as many at a time as there are cores.

    Raises:
        UserError: as `run_module`, of the first that failed.
    """
    names = list(frameworks)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda name: run_module(module, name, *arguments), names)
        return dict(zip(names, found, strict=True))


def run_module(module: str, framework: str, *arguments: str) -> str:
    """What `python -m module framework *arguments` prints.

    Raises:
        UserError: it failed, with the last line of its errors.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, framework, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | QUIET,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{framework} could not be verified: {last}")
    return done.stdout
