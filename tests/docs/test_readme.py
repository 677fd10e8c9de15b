"""The README's snippets run as printed, and its commands are what CI runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_runs_as_printed(snippet, capsys):
    for framework in ("torch", "keras", "tensorflow", "jax"):
        if f"import {framework}" in snippet and importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed here")
    exec(compile(snippet, "README.md", "exec"), {})
    printed = re.findall(r"print\(.*\)  # (.*)", snippet)
    numbers = [[float(x) for x in re.findall(r"\d\.\d+", text)] for text in printed]
    shown = [float(x) for x in re.findall(r"\d\.\d+", capsys.readouterr().out)]
    assert shown == pytest.approx([x for line in numbers for x in line])


def test_there_are_snippets_for_each_framework():
    assert sum("backends.torch" in snippet for snippet in SNIPPETS) >= 2
    assert sum("backends.numpy" in snippet for snippet in SNIPPETS) >= 1
    assert sum("backends.jax" in snippet for snippet in SNIPPETS) >= 2
    assert sum("backends.tensorflow" in snippet for snippet in SNIPPETS) >= 2


def test_two_commands_do_all_setting_up_and_ci_runs_the_second():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    demo, tests = commands
    assert demo == f"{tests} -s demo"
    assert tests in (ROOT / ".ci" / "run").read_text()
