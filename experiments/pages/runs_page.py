"""`loss-balance report`: any finished runs on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages import runs_plot
from loss_balance.experiments.pages.exhibit import as_csv
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.pages.runs_plot import Groups
from loss_balance.experiments.pages.style import Drawing, drawings
from loss_balance.experiments.runs.output_folder import flattened
from loss_balance.experiments.runs.trained import Trained, find
from loss_balance.experiments.studies.comparison import AT, FRACTIONS
from loss_balance.experiments.terminal import console, readable
from loss_balance.experiments.training.identity import essence
from loss_balance.experiments.training.reading import METRICS
from loss_balance.experiments.training.run_folder import write_atomically
from loss_balance.experiments.training.schemes import text_of

COLUMNS = ("network", "data", "scheme", "seeds", "epochs", *AT, "last exit's training loss", "run")
MARK = b"Written by loss-balance report "  # tells its pages from a user's


class Row(NamedTuple):
    """Runs that differ by their seeds: their means, and a row each to unfold."""

    cells: list[str]
    runs: list[list[str]]


class Section(NamedTuple):
    """Runs on the same images."""

    title: str
    curves: tuple[Drawing, ...]
    weights: tuple[Drawing, ...]
    even: list[str]  # what has the same weight for all exits throughout


def write(places: Sequence[Path], out: Path) -> None:
    """Writes the page of all finished runs in `places` to `out`.

    Raises:
        UserError: a place has no finished run, or `out` is a file of something else.
    """
    runs = find(places)
    _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page(runs))
    console.say(f"{len(runs)} run{'s' * (len(runs) > 1)}: {out}")


def page(runs: Sequence[Trained]) -> bytes:
    """The HTML; the same runs make the same page."""
    names = dict(zip((run.folder for run in runs), short_names(runs), strict=True))
    common, differing = configurations(runs)
    keys = sorted({key for config in differing for key in config})
    sections = [_section(k, *each) for k, each in enumerate(by_data(runs).items())]
    return render(
        "runs.html.j2",
        title=f"{len(runs)} run{'s' * (len(runs) > 1)}",
        columns=COLUMNS,
        rows=[row(group, names) for group in grouped(runs).values()],
        sections=sections,
        common=common,
        keys=keys,
        differing=[
            [name, *(config.get(key, "") for key in keys)]
            for name, config in zip(names.values(), differing, strict=True)
        ],
        numbers=as_csv(_numbers(runs, names)),
        mark=MARK.decode(),
    )


def grouped(runs: Iterable[Trained]) -> Groups:
    """Runs that differ by their seeds alone, by a label; the same run twice is there once."""
    groups: dict[str, dict[int, Trained]] = {}
    for run in runs:
        same = repr({**essence(run.config), "seed": None})
        groups.setdefault(same, {}).setdefault(int(run.config["seed"]), run)
    ordered = [[group[seed] for seed in sorted(group)] for group in groups.values()]
    labels = _labels([group[0] for group in ordered])
    return dict(zip(labels, ordered, strict=True))


def row(group: Sequence[Trained], names: dict[Path, str]) -> Row:
    """The cells of a group for COLUMNS, and of each of its runs; errors in %."""
    first = group[0]
    common = [first.spec.name, _data(first), first.scheme]
    epochs = str(first.recipe.epochs)
    seeds = ", ".join(str(run.config["seed"]) for run in group)
    values = np.array([_measured(run) for run in group])
    where = names[first.folder] if len(group) == 1 else f"{len(group)} runs"
    runs = [
        [*common, str(run.config["seed"]), epochs, *_cells(own[None]), names[run.folder]]
        for run, own in zip(group, values, strict=True)
    ]
    return Row([*common, seeds, epochs, *_cells(values), where], runs if len(group) > 1 else [])


def _measured(run: Trained) -> list[float]:
    errors = [100 * run.test_error[run.spec.latest_exit(fraction)] for fraction in FRACTIONS]
    return [*errors, run.result["train_loss"][-1]]


def _cells(values: NDArray[np.float64]) -> list[str]:
    """Means over the seeds (seeds, n), of several with their standard deviation."""
    digits = [2] * len(FRACTIONS) + [4]
    means = [f"{x:.{d}f}" for x, d in zip(values.mean(axis=0), digits, strict=True)]
    if len(values) == 1:
        return means
    spread = values.std(axis=0, ddof=1)
    return [f"{m} ±{s:.{d}f}" for m, s, d in zip(means, spread, digits, strict=True)]


def _section(number: int, title: str, runs: list[Trained]) -> Section:
    groups = grouped(runs)
    return Section(
        title,
        drawings(runs_plot.curves(groups), f"c{number}-"),
        drawings(runs_plot.weights(groups), f"w{number}-"),
        [label for label, group in groups.items() if runs_plot.even(group[0])],
    )


def _labels(runs: Sequence[Trained]) -> list[str]:
    """Network and scheme of each, and what else tells it from others of the same."""
    plain = [f"{run.spec.name}, {run.scheme}" for run in runs]
    _, differing = configurations(runs)
    labels = []
    for label, config in zip(plain, differing, strict=True):
        others = [c for other, c in zip(plain, differing, strict=True) if other == label]
        telling = [k for k in config if len({c.get(k) for c in others}) > 1 and k != "seed"]
        more = ", ".join(f"{key} {config[key]}" for key in telling)
        labels.append(readable(", ".join(filter(None, (label, more)))))
    return labels


def _numbers(runs: Sequence[Trained], names: dict[Path, str]) -> Iterator[tuple[object, ...]]:
    """A row per run and exit."""
    yield ("run", "network", "data", "scheme", "seed", "exit", "multiply_adds", *METRICS)
    for run in runs:
        about = (names[run.folder], run.spec.name, _data(run), run.scheme, run.config["seed"])
        for k, cost in enumerate(run.spec.costs()):
            values = (run.result[metric][k] for metric in METRICS)
            yield (*about, k + 1, cost.multiply_adds, *values)


def short_names(runs: Sequence[Trained]) -> list[str]:
    """Each run's folder without the part that all have in common."""
    parts = [run.folder.resolve().parts for run in runs]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


def by_data(runs: Iterable[Trained]) -> dict[str, list[Trained]]:
    """Runs whose errors are of the same images, by a title; others cannot share a figure."""
    groups: dict[tuple[str, str], list[Trained]] = {}
    for run in runs:
        groups.setdefault((_data(run), run.fingerprint), []).append(run)
    names = [data for data, _ in groups]
    return {
        data if names.count(data) == 1 else f"{data} (fingerprint {fingerprint})": group
        for (data, fingerprint), group in groups.items()
    }


def configurations(runs: Sequence[Trained]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What all configurations share, and per run the rest; without the networks' layers."""
    flat = []
    for run in runs:
        found = {key: str(value) for key, value in flattened(essence(run.config))}
        texts = {key: found.pop(key) for key in list(found) if key.startswith("scheme ")}
        flat.append({**found, "scheme": text_of(run.config["scheme"])} if texts else found)
    shared = {k: v for k, v in flat[0].items() if all(other.get(k) == v for other in flat)}
    return shared, [{k: v for k, v in config.items() if k not in shared} for config in flat]


def _data(run: Trained) -> str:
    return f"{run.source.name}{', held out' * run.source.validation}"


def _check_free(out: Path) -> None:
    if out.is_dir() or (out.exists() and MARK not in out.read_bytes()):
        raise UserError(f"--out must be a new file or a page of this command, got {out}")
