"""Trains what benchmarks/quality/results lacks, and writes docs/peers-quality.md.

python -m benchmarks.quality --images cifar10.npz      # an hour or two on one core
python -m benchmarks.quality weather poisson           # these problems alone
python -m benchmarks.quality --render                  # the page, of what is there
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.quality.methods import installed, methods
from benchmarks.quality.problems.equations import Burgers, Poisson
from benchmarks.quality.problems.exits import Exits
from benchmarks.quality.problems.problem import Problem
from benchmarks.quality.problems.weather import Weather
from benchmarks.quality.report import section
from benchmarks.quality.results import read, write
from benchmarks.quality.study import compete

PAGE = Path(__file__).parents[2] / "docs" / "peers-quality.md"
NAMES = ("weather", "poisson", "burgers", "exits")


def problem(name: str, images: Path | None) -> Problem:
    """The problem of that name."""
    if name == "exits":
        return Exits(images)
    return {"weather": Weather, "poisson": Poisson, "burgers": Burgers}[name]()


def study(one: Problem) -> None:
    """Trains what is not in its results yet, and keeps each result as it comes."""
    records = read(one.name)
    for method in methods(one):
        if not installed(method.title):
            print(f"{one.name}: {method.title} is not installed", file=sys.stderr)
            continue
        for record in compete(one, method, records.get(method.title, {})):
            records[method.title] = record
            write(one.name, records)
        print(f"{one.name}: {method.title} {records[method.title].get('best')}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Studies the named problems, then renders the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="problem", help=", ".join(NAMES))
    parser.add_argument("--images", type=Path, help="npz: x_train, y_train, x_test, y_test")
    parser.add_argument("--render", action="store_true", help="train nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    unknown = set(given.problems) - set(NAMES)
    if unknown:
        parser.error(f"problems must be among {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for name in () if given.render else given.problems or NAMES:
        if name == "exits" and given.images is None:
            parser.error("exits needs --images, a file with x_train, y_train, x_test, y_test")
        study(problem(name, given.images))
    given.page.write_text(section())
    print(given.page)


if __name__ == "__main__":
    main()
