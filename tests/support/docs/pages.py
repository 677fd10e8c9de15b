"""The pages of docs/ and their blocks: ```` ```python LABEL ````.

A block of Python without a label stands alone. One word as a label, a framework, means that it goes
on from the blocks of that label before it on the page. More words are a name, by which a test of
its own runs it. A comment before a block, `<!-- not run: REASON -->`, says that none can run it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n+)?"
    r"^```(?P<language>\w*) ?(?P<label>[^\n]*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    label: str
    code: str
    reason: str | None = None  # why it is not run


def blocks_of(path: Path) -> list[Block]:
    """Every block of a page, those within tabs too."""
    return [
        Block(found["language"], found["label"], found["code"], found["reason"])
        for found in FENCE.finditer(path.read_text())
    ]


def fences(page: str) -> list[tuple[str, str, str]]:
    """(language, label, code) of every block of a page of docs/."""
    return [block[:3] for block in blocks_of(DOCS / page)]


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
