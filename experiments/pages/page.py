"""Self-contained HTML pages: styles and pictures are in them, nothing is fetched."""

from __future__ import annotations

import base64
from typing import Any

import jinja2

import loss_balance
from loss_balance.experiments.terminal import readable


def render(template: str, **values: Any) -> bytes:
    """The page of one of the templates; `values` are what it names, escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("loss_balance.experiments.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    given = {"version": loss_balance.__version__, "embedded": _embedded, **values}
    return readable(environment.get_template(template).render(**given)).encode()


def _embedded(picture: bytes) -> str:
    """The text that stands for a PNG in a page."""
    return base64.b64encode(picture).decode()
