"""Where runs are trained: on this machine, or by the workers of a Dask cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loss_balance.experiments.errors import UserError


@dataclass(frozen=True)
class Here:
    """On this machine, so many runs at a time."""

    jobs: int


@dataclass(frozen=True)
class Cluster:
    """By Dask's workers.

    Args:
        address: `tcp://host:port` or another that Dask knows, the file that a scheduler wrote, or
            `local`, `local:2` for that many processes on this machine.

    Raises:
        UserError: it is none of these, or Dask is not installed.
    """

    address: str

    def __post_init__(self) -> None:
        known = self.local or "://" in self.address or Path(self.address).is_file()
        if not known:
            raise UserError(
                "--cluster must be tcp://HOST:PORT, the file that a scheduler wrote, or "
                f"local[:WORKERS], got {self.address!r}"
            )
        if find_spec("distributed") is None:
            raise UserError("Dask is not installed: pip install 'loss-balance[dask]'")

    @property
    def local(self) -> int | None:
        """How many workers to start on this machine, None if the cluster stands already."""
        found = re.fullmatch(r"local(?::([1-9]\d*))?", self.address)
        return int(found[1] or cores()) if found else None

    def check_answers(self) -> None:
        """UserError unless a scheduler answers, where one should."""
        from loss_balance.experiments.runs.cluster.connection import check_answers  # Dask

        if not self.local:
            check_answers(self.address)


Place = Here | Cluster


def place_of(jobs: int | None, cluster: str | None, devices: int = 1) -> Place:
    """What --jobs and --cluster mean.

    Args:
        jobs: how many runs at a time; None is a core for each device of each.
        cluster: the address of a cluster, None for this machine.
        devices: how many each run takes.

    Raises:
        UserError: less than one job, or both; no scheduler answers.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be a whole number of at least 1, got {jobs}")
    if cluster is not None:
        if jobs is not None:
            raise UserError("--jobs is for this machine, a --cluster has as many as its workers")
        place = Cluster(cluster)
        place.check_answers()
        return place
    return Here(max(1, cores() // devices) if jobs is None else jobs)


def cores() -> int:
    """How many cores this process may use; macOS and Windows only know how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
