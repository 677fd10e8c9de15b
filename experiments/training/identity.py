"""What makes a run the same: all that its numbers follow from, and not where anything lies."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration without its name and the place of its data, whose checksum is in it."""
    essential = copy.deepcopy({key: value for key, value in config.items() if key != "name"})
    if isinstance(essential.get("data"), dict):
        essential["data"].pop("path", None)
    return dict(json.loads(json.dumps(essential)))


def identity(config: dict[str, Any]) -> str:
    """A digest of `essence`: equal for runs that end in equal numbers."""
    text = json.dumps(essence(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
