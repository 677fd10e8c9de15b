"""Several real processes of one program, as a launcher starts them; none outlives its test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a process ended: its code, None if it had to be, and what it wrote."""

    code: int | None
    said: str


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_together(
    program: str,
    environments: Sequence[Mapping[str, str]],
    *arguments: str,
    folder: Path | None = None,
    timeout: float = 60.0,
) -> list[Ended]:
    """One process for each environment, all at once; those that run on are killed.

    Killed at once: a framework may keep SIGTERM to itself.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, program, *arguments],
            cwd=folder,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for own in environments
    ]

    def wait(process: subprocess.Popen[str]) -> Ended:
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return Ended(None, process.communicate()[0])
        return Ended(process.returncode, said)

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(wait, processes))
