"""docs/guides/integrations.md: none of its blocks goes untested."""

from __future__ import annotations

import re
from pathlib import Path

from support.docs.integrations import PAGE
from support.docs.pages import blocks, fences


def test_every_block_is_run_by_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert {language for language, _, _ in fences(PAGE)} == {"python"}
    assert set(re.findall(r'shown\("([\w-]+)"\)', tests)) == set(blocks(PAGE))
