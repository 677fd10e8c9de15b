"""`loss-balance verify`: do all installed frameworks give the weights of one independent oracle?

Each framework runs in a process of its own and reads the same drawn cases: an AdaLoss with drawn
hyperparameters and a sequence of losses of magnitudes 1e-6 to 1e6, with NaN, infinite, negative,
zero and absent ones among them. In the first round every framework runs all sequences, is compared
with the oracle after every step, and leaves its state half way. In the second it continues from the
half-way state of every framework, its own among them, as if nothing had happened.

    python -m loss_balance.experiments.verification FRAMEWORK ROUND FOLDER SEQUENCES SEED
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.experiments.verification.isolation import installed, run_each
from loss_balance.experiments.verification.oracle import Oracle
from loss_balance.schemes.adaloss import AdaLoss, LinearSchedule

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # relative, of each weight
STEPS = 16
Losses = list[float | None]


@dataclass(frozen=True)
class Case:
    """A scheme, the oracle's arguments for it, and one list of losses per step."""

    scheme: AdaLoss
    arguments: dict[str, Any]
    steps: list[Losses]

    def expected(self) -> list[list[float]]:
        """The oracle's weights after every step."""
        oracle = Oracle(**self.arguments)
        return [oracle.update(losses) for losses in self.steps]


@dataclass(frozen=True)
class BalancerVerdict:
    """What one framework did: worst relative error by dtype, and of states from elsewhere."""

    framework: str
    version: str
    sequences: int
    worst: dict[str, float]
    continued: float | None  # worst error after any framework's half-way state; None: alone here

    @property
    def agrees(self) -> bool:
        """Whether every weight was within the tolerance."""
        own = all(error <= TOLERANCE[dtype] for dtype, error in self.worst.items())
        return own and (self.continued is None or self.continued <= TOLERANCE["float32"])


def verify(folder: Path, sequences: int, seed: int) -> Iterator[BalancerVerdict]:
    """Runs both rounds for every installed framework; `folder` takes what they exchange."""
    frameworks = installed()
    first = _run(frameworks, "first", folder, sequences, seed)
    rest = frameworks if len(frameworks) > 1 else []
    second = _run(rest, "second", folder, sequences, seed)
    for name in frameworks:
        continued = second[name]["float32"] if second else None
        distribution = packages_distributions()[name][0]  # TensorFlow comes under two names
        yield BalancerVerdict(name, version(distribution), sequences, first[name], continued)


def draw(sequences: int, seed: int) -> Iterator[Case]:
    """The cases; the same in every process."""
    rng = np.random.default_rng(seed)
    while sequences:
        case = _draw_case(rng)
        if not _near_floor(case):
            sequences -= 1
            yield case


def _draw_case(rng: np.random.Generator) -> Case:
    n = int(rng.integers(1, 9))
    schedule = LinearSchedule(float(rng.random()), float(rng.random()), int(rng.integers(1, 20)))
    scheme = AdaLoss(
        n,
        gamma=schedule if rng.random() < 0.3 else float(rng.choice([0.0, 1.0, rng.random()])),
        decay=float(rng.choice([0.0, 0.5, 0.9, 0.99, 0.98 * rng.random()])),
        final_weight=float(rng.choice([1.0, 1.0, 2.0, 0.5])),
        update_every=int(rng.choice([1, 1, 1, 3])),
    )
    arguments: dict[str, Any] = {
        "n": n,
        "gamma": scheme.gamma,
        "decay": scheme.decay,
        "final_weight": scheme.final_weight,
        "update_every": scheme.update_every,
        "floor": scheme.floor,
    }
    if callable(scheme.gamma):
        low, high, count = schedule.start, schedule.stop, schedule.steps
        arguments["gamma"] = lambda step: low + (high - low) * min(step, count) / count
    return Case(scheme, arguments, [_draw_losses(rng, n, first=k == 0) for k in range(STEPS)])


def _draw_losses(rng: np.random.Generator, n: int, *, first: bool) -> Losses:
    """Rounded to float32, so that both dtypes and the oracle see the same numbers."""
    losses: Losses = [float(np.float32(10.0 ** rng.uniform(-6, 6))) for _ in range(n)]
    odd: Losses = [0.0, math.nan, math.inf, None]
    if not first:  # a negative loss in the first call is an error, not a bad value
        odd += [-1.0, -math.inf]
    for i in range(n):
        if rng.random() < 0.15:
            losses[i] = odd[int(rng.integers(len(odd)))]
    if all(loss is None for loss in losses):
        losses[0] = 1.0
    return losses


def _near_floor(case: Case) -> bool:
    """Where rounding alone decides whether an average is above the floor, nothing can agree."""
    oracle = Oracle(**case.arguments)
    for losses in case.steps:
        oracle.update(losses)
        averages = [a for a in oracle.average if a]
        if any(abs(a / case.scheme.floor - 1.0) < 1e-3 for a in averages):
            return True
    return False


def _run(
    frameworks: list[str], which: str, folder: Path, sequences: int, seed: int
) -> dict[str, dict[str, float]]:
    """One round, each framework in a process of its own: worst relative error by dtype."""
    printed = run_each(__spec__.name, frameworks, which, str(folder), str(sequences), str(seed))
    return {name: dict(json.loads(text.splitlines()[-1])) for name, text in printed.items()}


def _backend(framework: str) -> tuple[Any, Callable[[NDArray[Any]], Any]]:
    """(Balancer, how an array becomes the framework's)."""
    if framework == "numpy":
        from loss_balance.backends.numpy import Balancer as NumPyBalancer

        return NumPyBalancer, np.asarray
    if framework == "torch":
        import torch

        from loss_balance.backends.torch import Balancer as TorchBalancer

        return TorchBalancer, torch.from_numpy
    if framework == "jax":
        import jax.numpy as jnp

        from loss_balance.backends.jax import Balancer as JaxBalancer

        return JaxBalancer, jnp.asarray
    import keras

    from loss_balance.backends.tensorflow import Balancer as KerasBalancer

    return KerasBalancer, keras.ops.convert_to_tensor


def _first_round(framework: str, folder: Path, cases: list[Case]) -> dict[str, float]:
    make, convert = _backend(framework)
    (folder / framework).mkdir(parents=True, exist_ok=True)
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for k, case in enumerate(cases):
        expected = case.expected()
        for dtype in TOLERANCE:
            balance = make(case.scheme, dtype=_dtype(framework, dtype))
            for step, losses in enumerate(case.steps):
                _call(balance, losses, convert, dtype)
                error = _error(balance.export_state()["weights"], expected[step])
                worst[dtype] = max(worst[dtype], error)
                if dtype == "float32" and step == STEPS // 2 - 1:
                    np.savez(folder / framework / f"{k}.npz", **balance.export_state())
    return worst


def _second_round(framework: str, folder: Path, cases: list[Case]) -> dict[str, float]:
    make, convert = _backend(framework)
    worst = 0.0
    for other in installed():
        for k, case in enumerate(cases):
            balance = make(case.scheme, dtype=_dtype(framework, "float32"))
            with np.load(folder / other / f"{k}.npz", allow_pickle=False) as state:
                balance.import_state(dict(state))
            expected = case.expected()
            for step in range(STEPS // 2, STEPS):
                _call(balance, case.steps[step], convert, "float32")
                worst = max(worst, _error(balance.export_state()["weights"], expected[step]))
    return {"float32": worst}


def _dtype(framework: str, name: str) -> Any:
    if framework == "torch":
        import torch

        return getattr(torch, name)
    return name


def _call(balance: Any, losses: Losses, convert: Callable[[NDArray[Any]], Any], dtype: str) -> None:
    values = np.array([0.0 if x is None else x for x in losses], dtype)
    mask = np.array([x is not None for x in losses])
    balance(convert(values), mask=convert(mask))


def _error(weights: NDArray[Any], expected: list[float]) -> float:
    return float(np.max(np.abs(np.asarray(weights, np.float64) / np.array(expected) - 1.0)))


def main() -> None:
    """A round of one framework, in this process; what it found as JSON."""
    name, which, place, count, number = sys.argv[1:]
    drawn = list(draw(int(count), int(number)))
    rounds = {"first": _first_round, "second": _second_round}
    print(json.dumps(rounds[which](name, Path(place), drawn)))  # noqa: T201 (read by the parent)


if __name__ == "__main__":
    main()
