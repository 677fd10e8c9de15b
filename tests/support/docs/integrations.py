"""The blocks of guides/integrations.md: ```` ```python FRAMEWORK NAME ````, each whole."""

from __future__ import annotations

import sys
from types import ModuleType

from support.docs.pages import blocks

PAGE = "guides/integrations.md"


def shown(name: str) -> ModuleType:
    """A module in which the block has run, known to Python: Transformers looks for it there."""
    module = ModuleType("integrations_page")
    sys.modules[module.__name__] = module
    exec(compile(blocks(PAGE)[name], f"{PAGE}: {name}", "exec"), vars(module))
    return module
