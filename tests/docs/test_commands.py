"""What the pages tell to type: commands, options, extras and modules that there are.

`loss-balance` is asked for its options; the Python of a page is run by `test_pages.py`, and what
starts several processes by tests/multiprocess.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib

import pytest
from support.docs.pages import DOCS, PAGES, blocks_of

pytest.importorskip("typer")


from loss_balance.experiments.cli import COMMANDS, _command
from loss_balance.experiments.errors import UserError

ROOT = DOCS.parent
TEXTS = [ROOT / "README.md", *PAGES]
SHELL = ("sh", "bash", "")  # and blocks that show what a command prints


def lines():
    """(page, line) of every line of a shell, those that go on in the next one as one."""
    for path in TEXTS:
        for block in blocks_of(path):
            if block.language in SHELL and block.reason is None:
                text = block.code.replace("\\\n", " ")
                prompted = re.findall(r"(?m)^\$ (.*)$", text)
                for line in prompted or (text.splitlines() if block.language else []):
                    yield path, line.partition(" #")[0].strip()


def calls(program):
    """What follows the program on these lines, split as a shell does."""
    for path, line in lines():
        for part in re.split(r"&&|\|\|?|;", line):
            words = shlex.split(part)
            at = [k for k, word in enumerate(words) if word.split("/")[-1] == program]
            if at and all("=" in word or word == "env" for word in words[: at[0]]):
                yield pytest.param(words[at[0] + 1 :], id=f"{path.name}: {part.strip()[:60]}")


def options_of(name):
    """The options of a command, and the command within it if it is a group."""
    try:
        command = _command(name)
    except UserError as error:  # `serve` without its extra
        pytest.skip(str(error))
    inner = getattr(command, "commands", {})
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for each in inner.values():
        known |= {o for p in each.params for o in (*p.opts, *p.secondary_opts)}
    return known | {"--help"}, set(inner)


@pytest.mark.parametrize("words", list(calls("loss-balance")))
def test_a_command_of_a_page_knows_its_options(words):
    name, *rest = words
    assert name in COMMANDS
    known, inner = options_of(name)
    assert not inner or rest[0] in inner
    given = {word.partition("=")[0] for word in rest if re.match(r"--\w", word)}
    assert given <= known


def test_commands_named_within_a_text_are_there():
    for path in TEXTS:
        text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text())
        for name, rest in re.findall(r"`loss-balance ([a-z]+)([^`]*)`", text):
            assert name in COMMANDS, path
            known, _ = options_of(name)
            assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest)) <= known, (path, rest)


def test_extras_that_are_to_be_installed_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    named = {
        extra
        for path in TEXTS
        for found in re.findall(r"loss-balance\[([\w,-]+)\]", path.read_text())
        for extra in found.split(",")
    }
    assert named <= extras


@pytest.mark.parametrize("words", list(calls("python")))
def test_modules_that_are_to_be_run_are_there(words):
    if words[:1] == ["-m"] and words[1].startswith("benchmarks"):
        parts = words[1].split(".")
        folder = ROOT.joinpath(*parts)
        assert folder.with_suffix(".py").exists() or (folder / "__main__.py").exists()
    elif words[:1] == ["-m"]:
        assert importlib.util.find_spec(words[1].split(".")[0])


def test_there_are_commands_on_the_pages():
    assert len(list(calls("loss-balance"))) > 15
