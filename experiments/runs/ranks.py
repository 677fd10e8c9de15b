"""One run by several processes of PyTorch: those that --devices starts, or torchrun.

One of them may fail, be killed or stop answering: all end then, with that one error, and the run
goes on from its last checkpoint with as many as one likes.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.runs.watching import Report, Tell
from loss_balance.experiments.runs.working import belong_to_parent, train_as
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.reading import read_result

PATIENCE = "LOSS_BALANCE_PATIENCE"  # a variable: seconds that a rank waits for the others
GRACE = 2.0  # seconds for what one rank's failure brings about in others, to tell cause from effect


@dataclass(frozen=True)
class Failure:
    """How a rank ended, where not well."""

    when: float  # of the machine's monotonic clock
    message: str
    known: bool  # a UserError
    lost: bool = False  # it lost the others: an effect


class Stopped(Failure):
    """All ranks were asked to stop, and did."""


def train_by_ranks(
    run: Run, folder: Path, tell: Tell, stopped: Callable[[], bool]
) -> dict[str, Any]:
    """`working.train_as` by `run.engine.devices` processes on this machine.

    Raises:
        Interruption: `stopped` came true.
        UserError: what any rank raised, or one died or did not answer.
        RuntimeError: any other error of a rank, with its traceback.
    """
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as meeting:
        ranks: list[tuple[BaseProcess, Connection]] = []
        try:
            for rank in range(run.engine.devices):
                ours, theirs = context.Pipe()
                arguments = (rank, run, folder, f"file://{meeting}/store", theirs)
                process: BaseProcess = context.Process(target=_rank, args=arguments)
                process.start()
                theirs.close()
                ranks.append((process, ours))
            failures = _followed(ranks, tell, stopped)
        finally:
            for process, _ in ranks:
                process.kill()
                process.join()
    _raise_first(run, failures)
    return dict(read_result(folder, len(run.spec.exits)))


def _followed(
    ranks: list[tuple[BaseProcess, Connection]], tell: Tell, stopped: Callable[[], bool]
) -> list[Failure]:
    """Passes on what the ranks say, until all have ended or one has failed."""
    lines = {line: rank for rank, (_, line) in enumerate(ranks)}
    failures: list[Failure] = []
    asked, deadline = False, float("inf")
    while lines and time.monotonic() < deadline:
        if not asked and stopped():
            asked = True
            for line in lines:
                _ask_to_stop(line)
        ready = connection.wait(list(lines), timeout=0.2)
        for line in [line for line in lines if line in ready]:
            try:
                said = line.recv()
            except (EOFError, OSError):
                rank = lines.pop(line)
                failures += _death_of(ranks[rank][0], rank)
                continue
            if isinstance(said, Failure):
                failures.append(said)
            else:
                tell(said)
        if failures and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
    return failures


def _ask_to_stop(line: Connection) -> None:
    try:
        line.send("stop")
    except OSError:  # it has ended; reading its line will say how
        return


def _death_of(process: BaseProcess, rank: int) -> list[Failure]:
    """What to say of a rank whose line has ended: nothing if it ended by itself."""
    process.join(GRACE)
    code = process.exitcode
    if code is None or code >= 0:
        return []
    name = signal.Signals(-code).name
    return [Failure(0.0, f"rank {rank} was killed by {name} (out of memory?)", known=True)]


def _raise_first(run: Run, failures: list[Failure]) -> None:
    """The cause: a rank that was killed, or else the first error that is no effect of another's."""
    if not failures:
        return
    first = min(failures, key=lambda failure: (failure.lost, failure.when))
    if isinstance(first, Stopped):
        raise Interruption
    if first.lost:
        raise UserError(
            f"{run.name}: a rank did not answer for {patience()} s, or its connection broke "
            f"({first.message}); what was reached stays: --resume goes on"
        )
    if first.known:
        killed = ": --resume goes on" if first.when == 0.0 else ""
        raise UserError(f"{run.name}: {first.message}{killed}" if killed else first.message)
    raise RuntimeError(f"a rank of {run.name} failed:\n{first.message}")


def _rank(rank: int, run: Run, folder: Path, meeting: str, line: Connection) -> None:
    """One process of the run."""
    belong_to_parent()

    def tell(report: Report) -> None:
        if rank == 0:
            line.send(report)

    try:
        crew = join(run, rank, run.engine.devices, meeting)
        train_as(crew, run, folder, tell, line.poll)  # all that is ever said to it is to stop
        leave()
    except Interruption:
        line.send(Stopped(time.monotonic(), "", known=True))
    except UserError as error:
        line.send(Failure(time.monotonic(), str(error), known=True))
        sys.exit(1)
    except Exception as error:
        text = str(error).splitlines()[0] if is_lost(error) else traceback.format_exc()
        line.send(Failure(time.monotonic(), text, known=False, lost=is_lost(error)))
        sys.exit(1)


def join(
    run: Run, rank: int | None = None, size: int | None = None, meeting: str = "env://"
) -> Any:
    """The crew of this process, once the others are there; by default as torchrun says."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from loss_balance.experiments.training.learners.by_framework import use_one_thread
    from loss_balance.experiments.training.learners.torch_crew import TorchCrew, device_of

    use_one_thread("torch")
    place = int(os.environ.get("LOCAL_RANK", "0")) if rank is None else rank
    device = device_of(run.engine.device, place)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=meeting,
            rank=-1 if rank is None else rank,
            world_size=-1 if size is None else size,
            timeout=timedelta(seconds=patience()),
        )
    return TorchCrew(device)


def patience() -> int:
    """Seconds that a rank waits for the others; more than its slowest step or write takes."""
    text = os.environ.get(PATIENCE, "120")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{PATIENCE} must be whole seconds, at least 1, got {text!r}")
    return int(text)


def leave() -> None:
    """Ends the group: the last to be called."""
    import torch.distributed as dist

    dist.destroy_process_group()


def is_lost(error: Exception) -> bool:
    """Whether the error is of the connection to the others, and so an effect of their end."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, RuntimeError) and any(x in text for x in ("gloo", "nccl", "tcpstore"))
