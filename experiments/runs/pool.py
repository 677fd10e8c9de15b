"""Runs shared between commands: what one has trained, the next one finds by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import trained
from loss_balance.experiments.runs.places import Place
from loss_balance.experiments.runs.progress import Images, execute_and_show, work
from loss_balance.experiments.runs.trained import Trained
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.identity import identity
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.reading import read_config
from loss_balance.experiments.training.schemes import Coupling, name_of

TrainedRuns = dict[Run, Trained]  # by the run as it was asked for


@dataclass(frozen=True)
class Pool:
    """A folder of runs, each under a name that its network, data and everything else give it.

    A run whose folder was renamed, or whose data have moved, is found all the same.
    """

    folder: Path

    def train(self, runs: Iterable[Run], place: Place, images: Images) -> TrainedRuns:
        """All `runs`, of which only those are trained that no command has finished before.

        Args:
            runs: in any order, with any names, also the same one twice.
            place: where they are trained.
            images: how many there are in the training split of each source.

        Raises:
            UserError: as `execution.execute`.
            KeyboardInterrupt: likewise; the same call goes on.
        """
        known = self._known()
        named = {run: replace(run, name=self._name(run, known)) for run in runs}
        missing = {run for run in named.values() if not self._has(run)}
        console.say(f"{len(set(named.values()))} runs, {len(missing)} of them to train.")
        if missing:
            longest_first = sorted(missing, key=lambda run: (-work(run, images), run.name))
            execute_and_show(longest_first, self.folder, place, images)
        return {run: trained.read(self.folder / found.name) for run, found in named.items()}

    def _known(self) -> dict[str, str]:
        """The folder of each run that is there, by its identity."""
        found = {}
        for file in sorted(self.folder.glob("*/config.json")):
            try:
                found[identity(read_config(file.parent))] = file.parent.name
            except UserError:  # a damaged one is no run of anybody's here
                continue
        return found

    def _name(self, run: Run, known: dict[str, str]) -> str:
        usual = folder_name(run)
        return usual if self._has(replace(run, name=usual)) else known.get(run.identity(), usual)

    def _has(self, run: Run) -> bool:
        return (self.folder / run.name / "result.json").exists()


def folder_name(run: Run) -> str:
    """A readable name with a digest of the run's whole description, its own name aside.

    Hyperparameters of the scheme and the coupling are left out where they are at their defaults, so
    that one that a later version adds makes no other run of it.
    """
    config = run.config()
    del config["name"]
    defaults = {f.name: f.default for f in fields(run.scheme)}  # type: ignore[arg-type]
    scheme = {k: v for k, v in config["scheme"].items() if k not in defaults or v != defaults[k]}
    if run.coupling == Coupling():
        del config["coupling"]
    if run.engine.batch_norm == "global":
        del config["engine"]["batch_norm"]
    described = json.dumps({**config, "scheme": scheme}, sort_keys=True)
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    return (
        f"{run.spec.name}-{run.source.name}-{name_of(scheme, run.coupling)}-seed{run.seed}-{digest}"
    )
