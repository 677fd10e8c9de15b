"""Pages whose blocks are labelled, ```` ```python FRAMEWORK NAME ````, and run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(page: str) -> list[tuple[str, str, str]]:
    """(language, label, code) of every block."""
    return FENCE.findall((DOCS / page).read_text())


def blocks(page: str) -> dict[str, str]:
    """Code by name, of a page on one framework."""
    found = {label.split()[-1]: code for language, label, code in fences(page) if language}
    assert len(found) == sum(bool(language) for language, _, _ in fences(page))
    return found


def run(page: str, *names: str) -> dict[str, object]:
    """The names that these blocks define, one after the other in one module."""
    module: dict[str, object] = {"__name__": "page"}
    for name in names:
        exec(compile(blocks(page)[name], f"{page}: {name}", "exec"), module)
    return module
