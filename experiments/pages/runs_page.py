"""`loss-balance report`: any finished runs on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages import runs_plot
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.runs.output_folder import flattened
from loss_balance.experiments.runs.trained import Trained, find
from loss_balance.experiments.studies.comparison import AT, FRACTIONS
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.run_folder import write_atomically
from loss_balance.experiments.training.schemes import text_of

COLUMNS = ("network", "data", "scheme", "seed", "epochs", *AT, "last exit's training loss", "run")
MARK = b"Written by loss-balance report "  # tells its pages from a user's
Rows = list[list[str]]


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
    names = short_names(runs)
    groups = [
        (title, runs_plot.curves(group), _weights(group)) for title, group in by_data(runs).items()
    ]
    common, differing = configurations(runs)
    keys = sorted({key for config in differing for key in config})
    return render(
        "runs.html.j2",
        title=f"{len(runs)} run{'s' * (len(runs) > 1)}",
        columns=COLUMNS,
        rows=[row(name, run) for name, run in zip(names, runs, strict=True)],
        groups=groups,
        common=common,
        keys=keys,
        differing=[
            [name, *(config.get(key, "") for key in keys)]
            for name, config in zip(names, differing, strict=True)
        ],
        mark=MARK.decode(),
    )


def row(name: str, run: Trained) -> list[str]:
    """A run's cells for COLUMNS; errors at the fractions of the cost, %."""
    errors = [100 * run.test_error[run.spec.latest_exit(fraction)] for fraction in FRACTIONS]
    return [
        run.spec.name,
        _data(run),
        run.scheme,
        str(run.config["seed"]),
        str(run.recipe.epochs),
        *(f"{error:.2f}" for error in errors),
        f"{run.result['train_loss'][-1]:.4f}",
        name,
    ]


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
    read = [{**run.config, "scheme": text_of(run.config["scheme"])} for run in runs]
    flat = [{key: str(value) for key, value in flattened(config)} for config in read]
    shared = {k: v for k, v in flat[0].items() if all(other.get(k) == v for other in flat)}
    rest = [{k: v for k, v in config.items() if k not in {*shared, "name"}} for config in flat]
    return shared, rest


def _data(run: Trained) -> str:
    return f"{run.source.name}{', held out' * run.source.validation}"


def _weights(group: Sequence[Trained]) -> bytes | None:
    """A picture of the weights that change, if any do."""
    changing = [run for run in group if runs_plot.changes(run)]
    return runs_plot.weights(changing) if changing else None


def _check_free(out: Path) -> None:
    if out.is_dir() or (out.exists() and MARK not in out.read_bytes()):
        raise UserError(f"--out must be a new file or a page of this command, got {out}")
