"""The one way to the terminal: what is shown is shown as it is, wherever it comes from."""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.text import Text

WIDE = 500  # columns of what is no terminal, so that no name is broken in a pipe


class Terminal(Console):
    """A console for text that others have chosen: nothing in it is markup, emoji or a number.

    Attributes:
        progress: whether to show what is going on, beside what is found.
        json: whether what is found is wanted as JSON; then all else goes to stderr.
    """

    stderr: bool

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        self.progress: bool = True
        self.json: bool = False

    @property
    def size(self) -> ConsoleDimensions:
        """The terminal's, or wide; COLUMNS goes before both."""
        known = super().size
        return known if self.is_terminal else ConsoleDimensions(WIDE, known.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new

    def say(self, text: str) -> None:
        """A line, which the terminal may break but this does not."""
        self.print(text, soft_wrap=True)

    def working(self, text: str) -> contextlib.AbstractContextManager[object]:
        """A spinner on a terminal, a line elsewhere, nothing if no progress is wanted."""
        if not self.progress:
            return contextlib.nullcontext()
        if self.is_terminal:
            return self.status(Text(text))
        self.say(text)
        return contextlib.nullcontext()

    def found(self, value: Any) -> None:
        """What a command found: printed if JSON is wanted, when its tables went elsewhere."""
        if self.json and not self.quiet:
            sys.stdout.write(json.dumps(value, indent=2) + "\n")

    @contextlib.contextmanager
    def showing(self, *, progress: bool, as_json: bool) -> Iterator[None]:
        """Within, the two attributes are these."""
        before = self.progress, self.json, self.stderr
        self.progress, self.json, self.stderr = progress, as_json, as_json
        try:
            yield
        finally:
            self.progress, self.json, self.stderr = before


console: Terminal = Terminal()
complaints: Terminal = Terminal(stderr=True)


def accept_any_name() -> None:
    """Lets stdout and stderr take what is no UTF-8, as the names of files may be: byte by byte.

    What else their encoding has no way to write is a question mark, and no error.
    """
    codecs.register_error("as-it-is", _as_it_is)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="as-it-is")


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


def readable(text: str) -> str:
    """The text for a page or a picture, where what is no UTF-8 has no place."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
