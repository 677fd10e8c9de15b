"""Under which keys loggers get a balancer's numbers, in every framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

REFUSED = re.compile(r"[^\w.\- /]")  # by MLflow; a colon only on Windows


def labels(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names, or "0", "1", ... where there are none."""
    return tuple(names) if names else tuple(str(i) for i in range(count))


def keys(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Distinct labels that every logger takes: what MLflow refuses becomes "_"."""
    found: list[str] = []
    for label in labels(names, count):
        key = _plain(label)
        while key in found:
            key += "_"
        found.append(key)
    return tuple(found)


def _plain(label: str) -> str:
    """Letters, digits and ". - _", spaces; as a path it is no other, for MLflow makes files."""
    parts = REFUSED.sub("_", str(label)).split("/")
    return "/".join("_" * max(1, len(part)) if set(part) <= {"."} else part for part in parts)


def in_one(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metrics of several balancers in one dict, those of a single one as they are.

    Args:
        found: `metrics()` by the balancer's name; of several `loss_weight/a` becomes
            `loss_weight/<name>/a`, so that TensorBoard and others still show it beside its like.
    """
    if len(found) == 1:
        (only,) = found.values()
        return dict(only)
    return {
        f"{kind}/{name}/{label}": value
        for name, label_of in zip(keys(tuple(found), 0), found, strict=True)
        for (kind, _, label), value in ((k.partition("/"), v) for k, v in found[label_of].items())
    }
