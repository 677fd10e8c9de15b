"""docs/guides/training-loop.md: none of its blocks goes untested."""

from __future__ import annotations

import re
from pathlib import Path

from support.docs.loop_page import BLOCKS, FENCES


def test_every_block_is_labelled_and_run_by_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("*loop*.py"))
    called = re.findall(r'(?:run|go_on)\((?:page, )?"(\w+)", "([\w-]+)"', tests)
    assert all(language == "python" and len(label.split()) == 2 for language, label, _ in FENCES)
    assert len(BLOCKS) == len(FENCES)  # no label comes twice
    assert {key for key in BLOCKS if key[1] != "setup"} == set(called)
