"""What `loss-balance serve` keeps of its deadlines, from little load to far too much.

    python -m benchmarks.service runs/pairs
    python -m benchmarks.service runs/pairs --rates 50,200,800 --seconds 5 --deadlines 5,20

Starts the service on loopback and sends it pictures of noise, at random moments (Poisson) that do
not depend on when answers come, each with one of the deadlines. A request takes a connection that
is free or, up to --connections, a new one; if there is none it is counted as unsent.

Met is of those that were answered, in time by the service's clock, from the whole request to its
answer; latencies are the sender's, from the moment a request was due to its last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

PATIENCE = 10.0  # seconds for one request
IDLE = 4.0  # seconds after which a connection is not used again; uvicorn ends it after 5
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Load:
    """What became of the requests of one rate."""

    rate: float
    seconds: float
    due: int = 0
    unsent: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # of the answers, seconds
    refusals: Counter[int] = field(default_factory=Counter)  # by status
    errors: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """AssertionError if a request was lost."""
        ended = len(self.answers) + self.refusals.total() + self.errors.total()
        assert ended == self.due - self.unsent, (ended, self.due, self.unsent)

    def row(self) -> list[str]:
        """Of the table."""
        met = np.array([not answer["late"] for answer in self.answers])
        seen = [
            1000 * latency <= answer["deadline_ms"]
            for latency, answer in zip(self.latencies, self.answers, strict=True)
        ]
        p50, p99 = 1000 * np.quantile(self.latencies or [np.nan], [0.5, 0.99])
        exits = [answer["exit"] + 1 for answer in self.answers]
        batch = [answer["batch"] for answer in self.answers]
        return [
            f"{self.rate:g}",
            str(self.due - self.unsent),
            f"{len(self.answers) / self.seconds:.0f}",
            f"{100 * self.refusals.total() / max(self.due - self.unsent, 1):.1f}",
            f"{100 * met.mean():.2f}" if len(met) else "-",
            f"{100 * np.mean(seen):.2f}" if seen else "-",
            f"{np.mean(exits):.2f}" if exits else "-",
            f"{np.mean(batch):.1f}" if batch else "-",
            f"{p50:.1f}",
            f"{p99:.1f}",
            str(self.errors.total() + self.unsent),
        ]


HEADINGS = (
    "offered/s",
    "sent",
    "answered/s",
    "refused, %",
    "met, %",
    "met as seen by the sender, %",
    "mean exit",
    "mean batch",
    "p50, ms",
    "p99, ms",
    "errors and unsent",
)


class Connections:
    """Connections that are kept open, at most so many."""

    def __init__(self, host: str, port: int, most: int) -> None:
        self.host, self.port, self.most = host, port, most
        self.free: list[tuple[float, Streams]] = []  # since when, the latest last
        self.open = 0

    @property
    def any_left(self) -> bool:
        """Whether one is free or may be made."""
        return bool(self.free) or self.open < self.most

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Streams]:
        """A free one or a new one; closed if what is done with it fails."""
        clock = asyncio.get_running_loop().time
        while self.free and clock() - self.free[0][0] > IDLE:
            self.free.pop(0)[1][1].close()
            self.open -= 1
        self.open += not self.free
        try:
            streams = self.free.pop()[1] if self.free else await self._new()
        except OSError:
            self.open -= 1
            raise
        try:
            yield streams
        except BaseException:
            self.open -= 1
            streams[1].close()
            raise
        self.free.append((clock(), streams))

    async def _new(self) -> Streams:
        return await asyncio.open_connection(self.host, self.port)

    def close(self) -> None:
        """All that are free."""
        for _, (_, writer) in self.free:
            writer.close()


async def ask(connections: Connections, request: bytes) -> tuple[int, dict[str, Any]]:
    """(status, JSON) of the answer."""
    async with asyncio.timeout(PATIENCE), connections.one() as (reader, writer):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        body = await reader.readexactly(int(length[1]))
        if b"connection: close" in head:
            raise ConnectionError("the service closed the connection")
        return int(head.split()[1]), json.loads(body)


def request_of(picture: bytes, deadline: float, host: str) -> bytes:
    """The bytes of one, with a deadline in milliseconds."""
    head = (
        f"POST /predict?deadline_ms={deadline:g} HTTP/1.1\r\nhost: {host}\r\n"
        f"content-length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture


async def offer(
    connections: Connections,
    requests: list[bytes],
    rate: float,
    seconds: float,
    rng: np.random.Generator,
) -> Load:
    """So many requests a second, at moments and of deadlines that are drawn beforehand."""
    load = Load(rate, seconds)
    moments = np.cumsum(rng.exponential(1 / rate, int(2 * rate * seconds) + 100))
    moments = moments[moments < seconds]
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def one(due: float, request: bytes) -> None:
        try:
            status, found = await ask(connections, request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            load.errors[type(error).__name__] += 1
            return
        if status == 200:
            load.answers.append(found)
            load.latencies.append(loop.time() - start - due)
        elif status in (429, 503):
            load.refusals[status] += 1
        else:
            load.errors[str(status)] += 1

    async with asyncio.TaskGroup() as tasks:
        for due in moments.tolist():
            await asyncio.sleep(max(start + due - loop.time(), 0))
            load.due += 1
            if connections.any_left:
                tasks.create_task(one(due, requests[rng.integers(len(requests))]))
            else:
                load.unsent += 1
    load.check()
    return load


@contextlib.contextmanager
def serving(run: Path, options: list[str]) -> Iterator[tuple[str, int]]:
    """(host, port) of a service in a process of its own."""
    command = [sys.executable, "-m", "loss_balance", "serve", str(run), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = next(filter(None, map(_address.search, process.stdout)), None)
            if said is None:
                raise SystemExit("the service did not start")
            yield said[1], int(said[2])
        finally:
            process.terminate()


_address = re.compile(r"http://([\d.]+):(\d+)")


def picture(shape: tuple[int, ...]) -> bytes:
    """A PNG of noise."""
    height, width, channels = shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(content, "PNG")
    return content.getvalue()


async def measure(
    address: tuple[str, int],
    rates: list[float],
    seconds: float,
    deadlines: list[float],
    most: int,
    console: Console,
) -> list[Load]:
    """A load after the other; the first one is offered twice, and counts the second time."""
    connections = Connections(*address, most)
    health = f"GET /health HTTP/1.1\r\nhost: {address[0]}\r\n\r\n".encode()
    status, found = await ask(connections, health)
    assert status == 200, found
    expected = ", ".join(f"{time:.2f}" for time in found["expected_ms"])
    console.print(f"{found['network']}, one image: {expected} ms to each exit")
    content = picture(tuple(found["input_shape"]))
    requests = [request_of(content, deadline, address[0]) for deadline in deadlines]
    rng = np.random.default_rng(0)
    await offer(connections, requests, rates[0], min(seconds, 2.0), rng)
    loads = [await offer(connections, requests, rate, seconds, rng) for rate in rates]
    connections.close()
    return loads


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    rates: Annotated[str, typer.Option(help="Requests a second.")] = "50,100,200,400,800,1600",
    seconds: Annotated[float, typer.Option(help="Of each rate.")] = 8.0,
    deadlines: Annotated[str, typer.Option(help="In ms, drawn evenly.")] = "5,10,20,50",
    connections: Annotated[int, typer.Option(help="Open at a time, at most.")] = 256,
    options: Annotated[str, typer.Option(help="Of loss-balance serve.")] = "",
) -> None:
    """Prints a table with a row for each rate."""
    console = Console(width=160)
    with serving(run, options.split()) as address:
        loads = asyncio.run(
            measure(
                address,
                [float(rate) for rate in rates.split(",")],
                seconds,
                [float(deadline) for deadline in deadlines.split(",")],
                connections,
                console,
            )
        )
    table = Table(*HEADINGS)
    for load in loads:
        table.add_row(*load.row())
    console.print(table)
    for load in loads:
        console.print(f"{load.rate:g}/s refused {dict(load.refusals)} errors {dict(load.errors)}")


if __name__ == "__main__":
    typer.run(main)
