"""Self-contained HTML pages: styles and pictures are in them, nothing is fetched."""

from __future__ import annotations

import base64
from typing import Any

import jinja2

import loss_balance


def render(template: str, **values: Any) -> bytes:
    """The page of one of the templates; `values` are what it names, escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("loss_balance.experiments.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(version=loss_balance.__version__, **values)
    return page.encode()


def embedded(picture: bytes) -> str:
    """A PNG as the page holds it."""
    return base64.b64encode(picture).decode()
