"""The routes of a service: answers, streams of answers, health, metrics and a page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import Any

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from loss_balance.experiments.data.pictures import NoPictureError
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.serving import intake, replies
from loss_balance.experiments.serving.intake import Problem
from loss_balance.experiments.serving.metrics import Metrics
from loss_balance.experiments.serving.replies import Served
from loss_balance.experiments.serving.requests import Answer, Gone, Outcome, QueueFull, Refused
from loss_balance.experiments.serving.service import Service
from loss_balance.experiments.serving.tickets import Ticket

MAX_BODY = 10_000_000
FOLLOW = 0.1  # of the difference, by which `_preparing` follows what is seen
DECODERS = 2  # images that are unpacked at a time
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def application(
    service: Service, served: Served, metrics: Metrics, *, max_body: int = MAX_BODY
) -> Starlette:
    """The service over HTTP. It is started with the application and closed with it."""
    routes = Routes(service, served, metrics, max_body)

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        await run_sync(service.start)  # in a thread, so that there is one for the first image
        try:
            yield
        finally:
            await run_sync(service.close)

    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/predict", routes.predict, methods=["POST"]),
            Route("/predict/stream", routes.stream, methods=["POST"]),
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
        ],
        exception_handlers={Problem: routes.problem},
        lifespan=running,
    )


class Routes:
    """What answers at each address."""

    def __init__(self, service: Service, served: Served, metrics: Metrics, max_body: int) -> None:
        self._service, self._served, self._metrics = service, served, metrics
        self._scheduler, self._max_body = service.scheduler, max_body
        self._most = self._scheduler.queue + self._scheduler.times.most
        self._preparing = 0.0  # seconds that it takes of late from the body to the network's input
        self._open = 0  # requests that are read, unpacked, wait or are computed
        self._decoders = anyio.CapacityLimiter(DECODERS)
        self._html = files(__package__).joinpath("page.html").read_text("utf-8")

    async def predict(self, request: HttpRequest) -> Response:
        """The answer, once it is the best that the deadline leaves time for."""
        with self._slot(request):
            ticket, arrival = await self._submit(request, streams=False)
            try:
                outcome = await _unless_gone(request, ticket)
            finally:
                ticket.leave()
            return JSONResponse(self._told(outcome, ticket, arrival))

    async def stream(self, request: HttpRequest) -> Response:
        """Each exit's answer as it comes, as server-sent events; the last one counts."""
        with self._slot(request):
            ticket, arrival = await self._submit(request, streams=True)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = self._events(ticket, arrival)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, ticket: Ticket, arrival: float) -> AsyncIterator[str]:
        self._open += 1
        try:
            async for last, found in ticket:
                if not last and isinstance(found, Answer):
                    deadline = ticket.request.deadline
                    yield replies.event("answer", self._served.described(found, arrival, deadline))
                elif last:
                    yield self._last_event(found, ticket, arrival)
        finally:
            self._open -= 1
            if ticket.leave():
                self._metrics.ended("gone")

    def _last_event(self, found: Outcome, ticket: Ticket, arrival: float) -> str:
        try:
            return replies.event("done", self._told(found, ticket, arrival))
        except Problem as problem:
            self._metrics.ended(problem.outcome)
            return replies.event("error", {"error": str(problem), "status": problem.status})

    async def health(self, _: HttpRequest) -> Response:
        """Whether requests are taken, by what, and how long its exits take for one image."""
        scheduler, times = self._scheduler, self._scheduler.times
        steps = [times.step(exit_, 1) for exit_ in range(times.exits)]
        found = {
            "status": "ready" if self._service.ready else "closing",
            "network": self._served.name,
            "input_shape": self._served.input_shape,
            "classes": self._served.class_names,
            "exits": times.exits,
            "expected_ms": (1000 * np.cumsum(steps)).round(3).tolist(),
            "waiting": len(scheduler),
            "queue": scheduler.queue,
            "max_batch": times.most,
        }
        return JSONResponse(found, 200 if self._service.ready else 503)

    async def metrics(self, _: HttpRequest) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def page(self, _: HttpRequest) -> Response:
        """To try it by hand."""
        return HTMLResponse(self._html, headers={"Content-Security-Policy": PAGE_POLICY})

    async def problem(self, _: HttpRequest, problem: Exception) -> Response:
        """What was wrong, with its status."""
        assert isinstance(problem, Problem)
        self._metrics.ended(problem.outcome)
        headers = {"Retry-After": "1"} if problem.status in (429, 503) else None
        return JSONResponse({"error": str(problem)}, problem.status, headers)

    @contextmanager
    def _slot(self, request: HttpRequest) -> Iterator[None]:
        """One of as many requests as are open at a time; before anything of the body is read."""
        limit = intake.deadline_of(request)
        try:
            if self._open >= self._most:
                raise QueueFull(f"no more than {self._most} requests may be open")
            deadline = self._scheduler.clock() + limit - self._preparing
            self._scheduler.check(deadline, alone=self._open == 0)
        except Refused as refusal:
            raise replies.problem(refusal) from refusal
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _submit(self, request: HttpRequest, *, streams: bool) -> tuple[Ticket, float]:
        """What to wait for, and when the whole body had come."""
        try:
            asked = await intake.read(request, self._max_body)
            arrival = self._scheduler.clock()
            deadline = arrival + asked.seconds
            image = await self._prepared(asked.image, deadline)
            self._preparing += FOLLOW * (self._scheduler.clock() - arrival - self._preparing)
            alone = self._open == 1
            ticket = Ticket(self._scheduler, image, deadline, streams=streams, alone=alone)
            return ticket, arrival
        except NoPictureError as error:
            raise Problem(415, str(error)) from error
        except UserError as error:
            raise Problem(400, str(error)) from error
        except Refused as refusal:
            raise replies.problem(refusal) from refusal
        except ClientDisconnect as error:
            raise replies.problem(Gone("nobody waits for it any more")) from error

    async def _prepared(self, content: bytes, deadline: float) -> NDArray[np.float32]:
        """The network's input (H, W, C), a few at a time; Refused if it is too late by then."""
        async with self._decoders:
            self._scheduler.check(deadline, alone=self._open == 1)
            prepared = await run_sync(self._served.prepare, content)
        image: NDArray[np.float32] = prepared[0]
        return image

    def _told(self, outcome: Outcome, ticket: Ticket, arrival: float) -> dict[str, Any]:
        """The answer, counted; Problem where there is none."""
        if isinstance(outcome, Exception):
            raise replies.problem(outcome) from outcome
        found = self._served.described(outcome, arrival, ticket.request.deadline)
        late = None if found["deadline_ms"] is None else found["late"]
        self._metrics.answered(outcome.exit, outcome.at - arrival, late)
        return found


async def _unless_gone(request: HttpRequest, ticket: Ticket) -> Outcome:
    """The outcome, or Gone as soon as whoever asked has hung up."""
    outcome = asyncio.ensure_future(ticket.outcome())
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({outcome, gone}, return_when=asyncio.FIRST_COMPLETED)
        return outcome.result() if outcome.done() else Gone("nobody waits for it any more")
    finally:
        outcome.cancel()
        gone.cancel()


async def _hung_up(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
