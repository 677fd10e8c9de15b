"""docs/results/peers.md: a table for each table of the findings, and the loops counted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.peers.catalogue import ELSEWHERE, LIBRARIES, find
from benchmarks.peers.findings import Finding
from benchmarks.performance.page import machine

FRAMEWORKS = ("torch", "tensorflow-cpu", "jax", "keras", "numpy")
REMARKS = Path(__file__).with_name("remarks.md")


def tables(findings: Iterable[Finding]) -> dict[str, str]:
    """Markdown of each table, by its title."""
    of_it: dict[str, list[Finding]] = {}
    for finding in findings:
        of_it.setdefault(finding.table, []).append(finding)
    return {title: table(held) for title, held in of_it.items()}


def table(findings: list[Finding]) -> str:
    """Ways down, columns across, each in the order in which they came."""
    titles = dict.fromkeys(each.title for each in findings)
    columns = dict.fromkeys(each.column for each in findings)
    cells = {(each.title, each.column): cell(each.text) for each in findings}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title in titles:
        lines.append(
            f"| {title} | " + " | ".join(cells.get((title, c), "") for c in columns) + " |"
        )
    return "\n".join(lines)


def cell(text: str) -> str:
    """What a package says may hold what ends a cell."""
    return text.replace("|", "\\|")


def snippets(titles: Iterable[str]) -> str:
    """Each loop once, as a difference from the plain one, under the ways that are used so."""
    from benchmarks.peers.probes.lines import difference  # it needs PyTorch

    shown: dict[str, list[str]] = {}
    for title in titles:
        lines = difference(find(title).loop)
        if any(line.startswith("+ ") for line in lines):
            shown.setdefault("\n".join(lines), []).append(title)
    blocks = [f"{', '.join(held)}:\n\n```diff\n{text}\n```" for text, held in shown.items()]
    return "\n\n".join(blocks)


def installs() -> str:
    """The pip line of each package."""
    lines = [library.install for library in LIBRARIES if library.install]
    return "\n".join(("```sh", *lines, *ELSEWHERE.values(), "```"))


def page(findings: Iterable[Finding], further: Iterable[str] = ()) -> str:
    """The whole page: the remarks, with what stands in braces in them filled in.

    That is `{table NAME}`, `{machine}`, `{loops}` and `{installs}`. Tables that the remarks do not
    name follow at their end, then what else is given.
    """
    held = list(findings)
    packages = [each.package for each in LIBRARIES if each.package not in ("", "loss-balance")]
    adopted = dict.fromkeys(each.title for each in held if each.table == "What it takes to adopt")
    text = REMARKS.read_text().replace("{machine}", machine((*FRAMEWORKS, *packages, *ELSEWHERE)))
    text = text.replace("{loops}", snippets(adopted)).replace("{installs}", installs())
    for title, markdown in tables(held).items():
        place = f"{{table {title}}}"
        if place not in text:
            text += f"\n## {title}\n\n{place}\n"
        text = text.replace(place, markdown)
    text = re.sub(r"\{table [^}]*\}", "Not measured.", text)
    return "\n\n".join((text.strip(), *(each.strip() for each in further))) + "\n"
