"""What comes over HTTP: a body of bounded size, in bounded time, and a deadline."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.types import Message

PARAMETER, HEADER = "deadline_ms", "deadline-ms"
BODY_SECONDS = 30.0
FIELDS = 4  # of a form beside the image; more is no form of ours


class Problem(Exception):  # noqa: N818 (an answer with a status)
    """What is wrong with a request, for whoever sent it.

    Args:
        status: of HTTP.
        message: one line.
        outcome: as the metrics count it.
    """

    def __init__(self, status: int, message: str, outcome: str = "bad") -> None:
        super().__init__(message)
        self.status: int = status
        self.outcome: str = outcome


class Asked(NamedTuple):
    """What was sent."""

    image: bytes
    seconds: float  # until the answer is wanted, infinite if that was not said


def seconds(text: str | None) -> float:
    """Seconds from a number of milliseconds as text; infinite for None.

    Raises:
        Problem: it is no such number.
    """
    if text is None or not text.strip():
        return math.inf
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise Problem(400, f"{PARAMETER} must be milliseconds from 0 up, got {text[:40]!r}")
    return number / 1000


def deadline_of(request: HttpRequest) -> float:
    """Seconds, of the query or else of the header; known before there is a body."""
    return seconds(request.query_params.get(PARAMETER, request.headers.get(HEADER)))


async def read(request: HttpRequest, max_body: int) -> Asked:
    """The image and its deadline: the query's, else the header's, else the form's.

    Raises:
        Problem: the body is too large, too slow, empty or no form; the deadline is none.
    """
    limit = deadline_of(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request, max_body)
    except TimeoutError as error:
        raise Problem(408, f"a body must have come after {BODY_SECONDS:g} s") from error
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        image, field = await _form(request, body)
        limit = seconds(field) if limit == math.inf else limit
    else:
        image = body
    if not image:
        raise Problem(400, "the body must be an image, or a form with one, got nothing")
    return Asked(image, limit)


async def _body(request: HttpRequest, max_body: int) -> bytes:
    """All of it, if it is not too large; what is beyond that is not read."""
    too_large = Problem(413, f"a body must be of at most {max_body:,} bytes")
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > max_body:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_body:
            raise too_large
    return bytes(body)


async def _form(request: HttpRequest, body: bytes) -> tuple[bytes, str | None]:
    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = HttpRequest(request.scope, again).form(max_files=1, max_fields=FIELDS)
        async with form as values:
            files = [each for each in values.values() if isinstance(each, UploadFile)]
            field = values.get(PARAMETER)
            image = await files[0].read() if files else b""
            return image, field if isinstance(field, str) else None
    except HTTPException as error:
        raise Problem(400, f"a form must have one image, got: {error.detail}") from error
