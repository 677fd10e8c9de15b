"""docs/guides: none of its named blocks goes untested."""

from __future__ import annotations

import re
from pathlib import Path

from support.docs.loop_page import BLOCKS, FENCES


def test_every_named_block_is_run_by_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("*loop*.py"))
    called = re.findall(r'(?:run|go_on)\((?:page, )?"(\w+)", "([\w-]+)"', tests)
    assert {key for key in BLOCKS if key[1] != "setup"} == set(called)


def test_a_name_comes_once_and_a_set_up_is_the_same_on_every_page():
    named = [(framework, name) for _, framework, name, _ in FENCES if name != "setup"]
    assert len(named) == len(set(named))
    assert all(BLOCKS[framework, name] == code for _, framework, name, code in FENCES)
