"""Several processes of one command: those that torchrun starts join, others are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping

from loss_balance.experiments.errors import UserError

COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # of their launchers

JOINING = ("torch", "jax")  # frameworks, several processes of which may train one run
COORDINATOR = "JAX_COORDINATOR_ADDRESS"


def started(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """(the variable that says so, how many processes were started as one command); ("", 1) if one.

    torchrun's goes first, which may itself run under another launcher.
    """
    counts = {name: environment.get(name, "") for name in COUNTS}
    known = {name: int(count) for name, count in counts.items() if count.isdecimal()}
    if "WORLD_SIZE" in known:
        known = {"WORLD_SIZE": known["WORLD_SIZE"]}
    return next(((name, count) for name, count in known.items() if count > 1), ("", 1))


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Of this process among those that torchrun started; 0 without."""
    text = environment.get("RANK", "")
    return int(text) if text.isdecimal() and started(environment)[0] == "WORLD_SIZE" else 0


def joined(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun started for one command, 1 without it."""
    name, count = started(environment)
    return count if name == "WORLD_SIZE" and "RANK" in environment else 1


def check_started(*, joins: bool, environment: Mapping[str, str] = os.environ) -> None:
    """UserError if several processes were started as one command that would train as many times.

    Args:
        joins: whether the command can be several under torchrun.
        environment: as it was started.
    """
    name, count = started(environment)
    if count == 1 or (joins and joined(environment) > 1):
        return
    raise UserError(
        f"this command must be started once, {count} processes of it were ({name}={count}): "
        "`srun --ntasks=1` starts one; --devices, --jobs and --cluster share its work"
    )


def devices(asked: int, framework: str) -> int:
    """How many devices share each batch: as many as processes that joined, or as --devices says.

    Raises:
        UserError: these differ, or the framework has no such processes.
    """
    count = joined()
    if count == 1:
        return asked
    if framework not in JOINING:
        raise UserError(f"torchrun is for --framework {' or '.join(JOINING)}, got {framework}")
    if framework == "jax" and ":" not in os.environ.get(COORDINATOR, ""):
        raise UserError(f"several processes of jax need {COORDINATOR}, the host:port of rank 0")
    if asked not in (1, count):
        raise UserError(f"--devices must be {count} under torchrun, got {asked}")
    return count
