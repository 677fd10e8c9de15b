"""The runs of an ensemble: which to train, and what they measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loss_balance.experiments.data.sources import Dataset
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.trained import Trained
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.ensemble import Measured
from loss_balance.experiments.studies.options import Options
from loss_balance.experiments.studies.plan import plan
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.schemes import OPT
from loss_balance.reference_models.description.own import NetSpec


@dataclass(frozen=True)
class Training:
    """What is trained: every one of `networks` with every one of `schemes`."""

    options: Options
    networks: tuple[str, ...]
    schemes: tuple[str, ...]

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
        shared = tuple(name for name in self.schemes if name != OPT)
        if not shared:
            raise UserError("--schemes needs a scheme beside opt, which trains no anytime network")
        plans = {name: self._plan(name, self.schemes, data) for name in self.networks}
        largest = max(plans, key=lambda name: plans[name].spec.costs()[-1].multiply_adds)
        runs = []
        for name in plans:
            chosen = plans[name] if name == largest else self._plan(name, shared, data)
            runs += [(name, replace(run, name=f"{name}-{run.name}")) for run in chosen.runs()]
        return sorted(runs, key=lambda pair: -pair[1].spec.costs()[-1].multiply_adds)

    def _plan(self, network: str, schemes: tuple[str, ...], data: Dataset) -> Comparison:
        return plan(self.options, network, schemes, data)


def measure(runs: Sequence[Trained], repeats: int) -> list[Measured]:
    """Error on the test images and time at batch 1 of every run.

    Networks of one structure take the same time whatever they were trained with, so each structure
    is timed once: what differs between schemes is then no noise.
    """
    test = runs[0].test_data()
    times: dict[NetSpec, tuple[float, ...]] = {}
    measured = []
    for run in runs:
        errors = run.errors(test)
        if run.spec not in times:
            times[run.spec] = run.times(repeats)
        measured.append(
            Measured(
                run=str(run.folder),
                network=run.spec.name,
                scheme=OPT if len(run.spec.exits) == 1 else run.scheme,
                multiply_adds=tuple(cost.multiply_adds for cost in run.spec.costs()),
                milliseconds=tuple(1000 * seconds for seconds in times[run.spec]),
                validation_error=run.test_error,
                test_error=errors,
            )
        )
    return measured


def by_seed(runs: Sequence[Trained]) -> list[list[Trained]]:
    """The runs of each seed, in the order of the seeds.

    One set of runs if no network is there with two seeds of one scheme.

    Raises:
        UserError: the seeds do not have the same networks and schemes.
    """
    kinds = [(run.spec, run.scheme) for run in runs]
    if len(set(kinds)) == len(kinds):
        return [list(runs)]
    groups: dict[int, list[Trained]] = {}
    for run in runs:
        groups.setdefault(int(run.config["seed"]), []).append(run)
    found = [{(run.spec, run.scheme) for run in group} for group in groups.values()]
    if any(each != found[0] for each in found):
        raise UserError(
            "every seed must have the same networks and schemes, got "
            + "; ".join(f"seed {seed}: {len(group)} runs" for seed, group in groups.items())
        )
    return [groups[seed] for seed in sorted(groups)]


def check_same_data(runs: Sequence[Trained]) -> None:
    """UserError unless all runs held out images of the same data, in the same framework."""
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
