"""`loss-balance eann`: networks trained or taken from their folders, measured, combined, shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from loss_balance.experiments import compare, eann_report
from loss_balance.experiments.comparison import OPT, Comparison
from loss_balance.experiments.data import Dataset
from loss_balance.experiments.ensemble import Measured, combine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.trained import Trained, read
from loss_balance.experiments.training import Run
from loss_balance.reference_models.spec import AnytimeSpec

console = Console()


@dataclass(frozen=True)
class Training:
    """What is trained: `options.network` is one of `networks` after the other."""

    options: compare.Options
    networks: tuple[str, ...]

    def plan(self, data: Dataset) -> list[tuple[str, Run]]:
        """(network, run) of all runs, the longest first; OPT for the largest network alone.

        Raises:
            UserError: an option does not fit, or fewer than two networks are given.
        """
        if len(set(self.networks)) < max(2, len(self.networks)):
            raise UserError(
                "--networks must be two or more different ones, with commas, got "
                f"{', '.join(self.networks) or 'none'}"
            )
        shared = tuple(name for name in self.options.schemes if name != OPT)
        if not shared:
            raise UserError("--schemes needs a scheme beside opt, which trains no anytime network")
        plans = {name: self._plan(name, self.options.schemes, data) for name in self.networks}
        largest = max(plans, key=lambda name: plans[name].spec.costs()[-1].multiply_adds)
        runs = []
        for name in plans:
            chosen = plans[name] if name == largest else self._plan(name, shared, data)
            runs += [(name, replace(run, name=f"{name}-{run.name}")) for run in chosen.runs()]
        return sorted(runs, key=lambda pair: -pair[1].spec.costs()[-1].multiply_adds)

    def _plan(self, network: str, schemes: tuple[str, ...], data: Dataset) -> Comparison:
        return compare.plan(replace(self.options, network=network, schemes=schemes), data)


def train(
    training: Training,
    folder: Path,
    workers: int,
    *,
    resume: bool,
    overwrite: bool,
    download: bool,
) -> list[Path] | None:
    """Trains what is missing in `folder`/runs; the folders of all runs, None after Ctrl-C.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    if workers < 1:
        raise UserError(f"jobs must be a whole number of at least 1, got {workers}")
    data = training.options.source.load(download=download)
    runs = [run for _, run in training.plan(data)]
    first = compare.plan(replace(training.options, network=training.networks[0]), data)
    config = compare.config_of(training.options, first)
    config |= {"network": list(training.networks)}
    compare.claim_folder(folder, config, resume=resume, overwrite=overwrite)
    try:
        compare.train_all(runs, folder, min(workers, len(runs)), data)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {folder} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return None
    return [folder / "runs" / run.name for run in runs]


def combine_runs(folders: Sequence[Path], out: Path, repeats: int) -> None:
    """Measures the runs, combines them, shows the ensembles and writes the report to `out`.

    Raises:
        UserError: the runs do not fit together or nothing was held out from training; `out` is
            taken by something else.
    """
    runs = [read(folder) for folder in folders]
    _check_same_data(runs)
    networks = measure(runs, repeats)
    combined = combine(networks)
    setting = eann_report.Setting(runs[0].source.name, runs[0].framework, repeats)
    out.mkdir(parents=True, exist_ok=True)
    eann_report.write(out, combined, setting)
    eann_report.show(console, combined, setting)
    console.print(f"Report: {out / 'eann.html'}   Curves: {out / 'eann.png'}")


def check_free(out: Path) -> None:
    """UserError if a report in `out` would mix with the runs of another command or a user's files.

    Only an empty folder or an earlier report of runs from elsewhere is free.
    """
    taken = (out / "config.json").exists() or (out.exists() and not out.is_dir())
    foreign = out.is_dir() and any(out.iterdir()) and not (out / "eann.html").exists()
    if taken or foreign:
        raise UserError(
            f"--out must be a new or empty folder or one with a report of RUNs, got {out}"
        )


def measure(runs: Sequence[Trained], repeats: int) -> list[Measured]:
    """Error on the test images and time at batch 1 of every run.

    Networks of one structure take the same time whatever they were trained with, so each structure
    is timed once: what differs between schemes is then no noise.
    """
    test = runs[0].test_data()
    times: dict[AnytimeSpec, tuple[float, ...]] = {}
    measured = []
    for run in runs:
        errors = run.errors(test)
        if run.spec not in times:
            times[run.spec] = run.times(repeats)
        measured.append(
            Measured(
                str(run.folder),
                run.spec.name,
                OPT if len(run.spec.exits) == 1 else run.scheme,
                tuple(cost.multiply_adds for cost in run.spec.costs()),
                tuple(1000 * seconds for seconds in times[run.spec]),
                run.test_error,
                errors,
            )
        )
    return measured


def _check_same_data(runs: Sequence[Trained]) -> None:
    for run in runs:
        if run.validation_error is None:
            raise UserError(
                f"{run.folder} was trained on all training images, so none are left to choose its "
                "answers by: train with --validation, or let `loss-balance eann` train"
            )
        if run.fingerprint != runs[0].fingerprint:
            raise UserError(
                f"the runs of an ensemble must be of the same data, got {runs[0].folder} and "
                f"{run.folder}"
            )
        if run.framework != runs[0].framework:
            raise UserError(
                f"the runs of an ensemble must be of one framework, got {runs[0].framework} and "
                f"{run.framework}"
            )
