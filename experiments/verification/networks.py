"""Do the networks of all installed frameworks compute and train the same?

Each framework runs in a process of its own, loads the same drawn weights, and leaves what it
computed as arrays; then the frameworks are compared, each with all others. In a second round each
loads the weights that the others have trained and dumped. The last comparison is of the learners
that `loss-balance compare` trains with: data, augmentation, optimiser and balancer at once.

    python -m loss_balance.experiments.verification.networks FRAMEWORK ROUND FOLDER [NETWORK...]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners import by_framework
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import SCHEMES
from loss_balance.experiments.verification.isolation import installed, run_each
from loss_balance.experiments.verification.probes import (
    PROBES,
    probe_of,
    random_batch,
    random_weights,
)
from loss_balance.experiments.verification.small_networks import CHAINS
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.schemes.adaloss import AdaLoss

FULL_SIZE = ("resann50", "denseann169", "msdnet38")  # inference alone, where asked for
BATCH, STEPS = 8, 3
# At ten times this rate one of the networks turns a rounding difference into 7e-3, or 0.1, in
# three steps. And a ReLU's input may be zero but for rounding, its gradient there or not: of 240
# draws of images that struck 8 (up to 0.03), so it is the middle of five that counts.
RATE, DRAWS = 0.005, 5
RECIPE = Recipe(epochs=1, weight_decay=0.1)  # enough decay that the loss would show it missing
SOURCE = Source("digits", augment="crop-flip")
# What may differ, relative to the largest such value of the same network. Running variances are
# left to the tests: PyTorch keeps the unbiased one, n / (n - 1) times that of the others. In an
# epoch ReLUs make the worst over ten seeds 3.4e-4; without weight decay it is 6e-3.
TOLERANCE = {
    "logits": 1e-4,
    "training loss": 1e-4,
    "gradients": 1e-3,
    "guided, in equilibrium": 1e-3,
    "batch means": 1e-4,
    "losses in training": 1e-4,
    f"{STEPS} SGD steps": 1e-3,
    "loaded elsewhere": 1e-4,
    "learner's epoch": 1e-3,
}


@dataclass(frozen=True)
class NetworkVerdict:
    """The worst difference of one framework from any other, by TOLERANCE's keys."""

    framework: str
    worst: dict[str, float]

    @property
    def agrees(self) -> bool:
        """Whether all are within TOLERANCE; a framework alone has nothing to differ from."""
        return all(value <= TOLERANCE[name] for name, value in self.worst.items())


def verify(folder: Path, *, full_size: bool = False) -> Iterator[NetworkVerdict]:
    """Runs both rounds for every installed framework; `folder` takes what they exchange.

    With `full_size` networks of ILSVRC's size join in, in inference.
    """
    frameworks = [name for name in installed() if name in PROBES]
    for which in ("first", "second") if len(frameworks) > 1 else ():
        run_each(__spec__.name, frameworks, which, str(folder), *(FULL_SIZE if full_size else ()))
    found = {name: _read(folder / name) for name in frameworks} if len(frameworks) > 1 else {}
    for name in frameworks:
        others = [found[other] for other in frameworks if other != name]
        worst = dict.fromkeys(TOLERANCE if others else (), 0.0)
        for other in others:
            for kind, difference in _differences(found[name], other):
                worst[kind] = max(worst[kind], difference)
        yield NetworkVerdict(name, worst)


def _differences(
    ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]
) -> Iterator[tuple[str, float]]:
    """(key of TOLERANCE, difference) for every network: that of its middle draw.

    Keys are `<kind>/<network>/<draw>/<array>`. A draw's difference is that of its worst array,
    relative to the largest value of all of the draw's; a value that is not finite is infinitely
    far from any.
    """
    arrays: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key in ours:
        kind, network, draw, _ = key.split("/", 3)
        arrays[kind, network][draw].append(key)
    for (kind, _), draws in arrays.items():
        gaps = [
            _relative_gap([(ours[key], theirs[key]) for key in keys]) for keys in draws.values()
        ]
        yield kind, median(gaps)


def _relative_gap(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    scale = max(float(np.abs(a).max()) for a, _ in pairs)
    gaps = [float(np.abs(a - b).max()) / scale for a, b in pairs]
    return max(gap if np.isfinite(gap) else np.inf for gap in gaps)


def _read(folder: Path) -> dict[str, NDArray[Any]]:
    return {**weights.load(folder / "first.npz"), **weights.load(folder / "second.npz")}


def _first_round(framework: str, folder: Path, large: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What the framework computes from the drawn weights; leaves its trained weights as npz."""
    probe = probe_of(framework)
    found: dict[str, NDArray[Any]] = {}
    for spec in CHAINS:
        net, given = probe.network(spec), random_weights(spec)
        net.load_weights(given)
        batch = random_batch(spec, BATCH)
        found |= _named("logits", spec, probe.predict(net, batch[0]))
        logits, gradients = probe.gradients(net, *batch)
        found |= _named("training loss", spec, [_loss(logits, batch[1])])
        found |= _named("gradients", spec, gradients)
        net.load_weights(given)
        pulls = tuple(np.linspace(0.1, 1.0, len(spec.exits)).tolist())
        _, mixed = probe.gradients(net, *batch, (pulls, 1.0))
        found |= _named("guided, in equilibrium", spec, mixed)
        moved = net.dump_weights()
        means = [name for name in spec.statistics() if name.endswith(".mean")]
        found |= _named("batch means", spec, {name: moved[name] - given[name] for name in means})
        for draw in range(DRAWS):
            net.load_weights(given)
            batch = random_batch(spec, BATCH, seed=draw)
            scheme = AdaLoss(len(spec.exits))
            kept = probe.train(net, scheme, *batch, steps=STEPS, learning_rate=RATE)
            trained = net.dump_weights()
            steps = {name: trained[name] - given[name] for name in spec.parameters()}
            found |= _named("losses in training", spec, [kept], draw)
            found |= _named(f"{STEPS} SGD steps", spec, steps, draw)
        weights.save(folder / f"{spec.name}.npz", trained)
    for name in large:
        spec = families.get(name)
        net = probe.network(spec)
        net.load_weights(random_weights(spec))
        found |= _named("logits", spec, probe.predict(net, random_batch(spec, 1)[0]))
    return found | _epoch(framework)


def _epoch(framework: str) -> dict[str, NDArray[Any]]:
    """The mean losses of an epoch of the framework's learners, and the loss weights at its end."""
    data = SOURCE.load()
    spec = families.resann(1, 4, data.num_classes, input_shape=data.input_shape)
    adaloss = AdaLoss(len(spec.exits), decay=0.9)
    found: dict[str, NDArray[Any]] = {}
    for name in ("adaloss", "guided", "gradient-norm"):
        run = Run(
            name="verify",
            spec=spec,
            scheme=SCHEMES[name].make(adaloss, 1),
            recipe=RECIPE,
            seed=0,
            source=SOURCE,
            fingerprint=data.fingerprint(),
            engine=Engine(framework),
            coupling=SCHEMES[name].coupling,
        )
        learner = by_framework.learner(run, data)
        batches = feed.training(data, RECIPE, seed=0, epoch=0)
        losses = learner.train_epoch(batches, RECIPE.rate(0), lambda *_: None)
        found[f"learner's epoch/losses of {name}/0/all"] = losses
        found[f"learner's epoch/weights of {name}/0/all"] = np.asarray(learner.loss_weights())
    return found


def _second_round(framework: str, folder: Path, _: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Logits from the weights that every framework trained, its own among them."""
    probe = probe_of(framework)
    found: dict[str, NDArray[Any]] = {}
    for spec in CHAINS:
        net = probe.network(spec)
        for other in sorted(path.name for path in folder.parent.iterdir()):
            net.load_weights(weights.load(folder.parent / other / f"{spec.name}.npz"))
            logits = probe.predict(net, random_batch(spec, BATCH)[0])
            found |= _named(
                "loaded elsewhere", spec, {f"{other}.{i}": a for i, a in enumerate(logits)}
            )
    return found


def _named(
    kind: str, spec: AnytimeSpec, arrays: dict[str, Any] | list[Any], draw: int = 0
) -> dict[str, NDArray[Any]]:
    """`<kind>/<network>/<draw>/<array>` for every array."""
    named = arrays if isinstance(arrays, dict) else dict(enumerate(arrays))
    return {f"{kind}/{spec.name}/{draw}/{name}": np.asarray(a) for name, a in named.items()}


def _loss(logits: list[NDArray[Any]], labels: NDArray[np.int64]) -> float:
    """The sum over exits of the mean cross-entropy."""
    total = 0.0
    for each in logits:
        shifted = each.astype(np.float64) - each.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        total += float((log_sum - shifted[np.arange(len(labels)), labels]).mean())
    return total


def main() -> None:
    """A round of one framework, in this process; its results are a file."""
    name, which, place, *large = sys.argv[1:]
    home = Path(place) / name
    home.mkdir(parents=True, exist_ok=True)
    rounds = {"first": _first_round, "second": _second_round}
    weights.save(home / f"{which}.npz", rounds[which](name, home, large))


if __name__ == "__main__":
    main()
