"""Which runs a comparison needs, and what their results say of each scheme against OPT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.equilibrium import STRENGTH
from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.runs.execution import Results
from loss_balance.experiments.studies.settings import (
    Settings,
    check_known,
    described,
    set_recipe,
    set_scheme,
)
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.own import is_own, kind_of
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import OPT, Coupling
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.schemes.adaloss import AdaLoss
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Single

FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of the cost, where the paper compares (Fig. 2a, Table 3a)
AT = ("1/4", "1/2", "3/4", "1")  # FRACTIONS in print


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One network, one data set, several schemes and seeds.

    OPT is one network per fraction of the cost, cut after the latest exit
    that fits and trained for that exit alone: what it could reach if it need not share.

    Attributes:
        schemes: what is compared, by the names that the runs and tables have.
        changed: of a name that is not a scheme's own, the scheme and what differs from it.
    """

    spec: NetSpec
    recipe: Recipe
    source: Source
    fingerprint: str  # of the data
    schemes: tuple[str, ...]
    seeds: tuple[int, ...]
    adaloss: AdaLoss
    images: int  # in the training split
    guidance: float = STRENGTH  # of the schemes that guide
    engine: Engine = field(default_factory=Engine)
    evaluate_every: int = 0
    changed: dict[str, tuple[str, Settings]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.schemes or ("",):
            kind_of(self._kind(name))
        changes = {key for _, changes in self.changed.values() for key in changes}
        check_known(changes, [self.scheme(name) for name in self.schemes])
        for name in self.schemes:
            self.recipe_of(name)

    def _kind(self, name: str) -> str:
        """What the command line calls the scheme."""
        return self.changed[name][0] if name in self.changed else name

    def _changes(self, name: str) -> Settings:
        return self.changed[name][1] if name in self.changed else {}

    @property
    def exits(self) -> tuple[int, ...]:
        """The exit compared at each of FRACTIONS, as an index into `spec.exits`."""
        return tuple(self.spec.latest_exit(fraction) for fraction in FRACTIONS)

    @property
    def cuts(self) -> list[int]:
        """The exits after which OPT cuts the network: `exits`, each once."""
        return sorted(set(self.exits))

    @property
    def shared(self) -> tuple[str, ...]:
        """The schemes that train one network with all exits."""
        return tuple(name for name in self.schemes if name != OPT)

    def runs(self) -> list[Run]:
        """All runs, the longest first, so that the workers end close together."""
        runs = [self.run(name, seed) for name in self.shared for seed in self.seeds]
        if OPT in self.schemes:
            runs += [self.run(OPT, seed, cut) for cut in self.cuts for seed in self.seeds]
        return sorted(runs, key=lambda run: -run.spec.costs()[-1].multiply_adds)

    def run_name(self, scheme: str, seed: int, cut: int | None = None) -> str:
        """The folder of one run."""
        suffix = "" if cut is None else f"-exit{cut + 1}"
        return f"{scheme.replace(', ', '-').replace(' ', '-')}{suffix}-seed{seed}"

    def run(self, name: str, seed: int, cut: int | None = None) -> Run:
        """One run: a scheme over all exits, or OPT of the network cut after exit `cut`."""
        spec = self.spec if cut is None else self.spec.single_exit(cut)
        return Run(
            name=self.run_name(name, seed, cut),
            spec=spec,
            scheme=self.scheme(name) if cut is None else Single(1),
            recipe=self.recipe_of(name),
            seed=seed,
            source=self.source,
            fingerprint=self.fingerprint,
            engine=self.engine,
            coupling=self.coupling(name) if cut is None else Coupling(),
            evaluate_every=self.evaluate_every,
        )

    def coupling(self, name: str) -> Coupling:
        """How the scheme of that name couples exits and trunk, guided as strongly as asked for."""
        usual = kind_of(self._kind(name)).coupling
        return replace(usual, guidance=self.guidance) if usual.guidance else usual

    def scheme(self, name: str) -> Scheme:
        """The scheme object of that name for this network; ValueError if a change is none."""
        updates = self.recipe_of(name).batches(self.images)
        return set_scheme(
            kind_of(self._kind(name)).make(self.adaloss, updates), self._changes(name)
        )

    def recipe_of(self, name: str) -> Recipe:
        """How the scheme of that name is trained; ValueError if a change is out of its range."""
        return set_recipe(self.recipe, self._changes(name))


def named(
    schemes: Sequence[str], common: Settings, swept: Sequence[Settings]
) -> dict[str, tuple[str, Settings]]:
    """What `Comparison.changed` is for schemes under --set and --sweep, in order.

    OPT stays as it is in a sweep.
    """
    found = {}
    for scheme in schemes:
        short = scheme.rpartition(":")[2] if is_own(scheme) else scheme
        for changes in [{}] if scheme == OPT else swept:
            found[f"{short} {described(changes)}".strip()] = (scheme, {**common, **changes})
    return found


@dataclass(frozen=True)
class Curve:
    """A scheme's results per exit, (seeds, exits): shared networks have all, OPT the cut ones."""

    multiply_adds: tuple[int, ...]
    train_loss: NDArray[np.float64]
    test_error: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over the seeds, as JSON holds them (deviation null for 1)."""

        def spread(values: NDArray[np.float64]) -> list[float] | None:
            return values.std(axis=0, ddof=1).tolist() if len(values) > 1 else None

        return {
            "multiply_adds": list(self.multiply_adds),
            "train_loss": self.train_loss.mean(axis=0).tolist(),
            "train_loss_sd": spread(self.train_loss),
            "test_error": self.test_error.mean(axis=0).tolist(),
            "test_error_sd": spread(self.test_error),
            "train_loss_of_seeds": self.train_loss.tolist(),
            "test_error_of_seeds": self.test_error.tolist(),
        }


@dataclass(frozen=True)
class Outcome:
    """What was measured: every scheme's curve, and the four exits at which OPT was trained."""

    comparison: Comparison
    curves: dict[str, Curve]

    def at_fractions(self, name: str, metric: str) -> NDArray[np.float64]:
        """`train_loss` or `test_error` at FRACTIONS, shape (seeds, 4)."""
        values: NDArray[np.float64] = getattr(self.curves[name], metric)
        if name == OPT:
            cuts = self.comparison.cuts
            return values[:, [cuts.index(cut) for cut in self.comparison.exits]]
        return values[:, list(self.comparison.exits)]

    def difference(self, name: str, metric: str, over: str) -> NDArray[np.float64]:
        """Difference of the seeds' means, at FRACTIONS."""
        gap: NDArray[np.float64] = self._mean(name, metric) - self._mean(over, metric)
        return gap

    def increase(self, name: str, metric: str, over: str) -> NDArray[np.float64]:
        """`difference` relative to the other scheme's mean; 0.1 is 10 %."""
        with np.errstate(divide="ignore", invalid="ignore"):  # an error of zero has no ratio
            ratio: NDArray[np.float64] = self.difference(name, metric, over) / self._mean(
                over, metric
            )
        return ratio

    def _mean(self, name: str, metric: str) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self.at_fractions(name, metric).mean(axis=0)
        return mean


def outcome(comparison: Comparison, results: Results) -> Outcome:
    """Gathers the results of all runs by scheme."""
    costs = [cost.multiply_adds for cost in comparison.spec.costs()]
    curves = {
        name: _curve([[comparison.run_name(name, s)] for s in comparison.seeds], results, costs)
        for name in comparison.shared
    }
    if OPT in comparison.schemes:
        cuts = comparison.cuts
        names = [[comparison.run_name(OPT, s, cut) for cut in cuts] for s in comparison.seeds]
        own = [comparison.spec.single_exit(cut).costs()[-1].multiply_adds for cut in cuts]
        curves[OPT] = _curve(names, results, own)
    return Outcome(comparison, curves)


def _curve(names: list[list[str]], results: Results, costs: Sequence[int]) -> Curve:
    """`names`: per seed, the runs whose exits make up the curve, one after the other."""

    def gather(metric: str) -> NDArray[np.float64]:
        return np.array([[x for name in row for x in results[name][metric]] for row in names])

    return Curve(tuple(costs), gather("train_loss"), gather("test_error"))
