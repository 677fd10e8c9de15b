"""Outcomes, ensembles and finished runs of made-up numbers, for what is shown of them."""

from __future__ import annotations

import numpy as np

from loss_balance import AdaLoss
from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.studies.comparison import Comparison, Curve, Outcome
from loss_balance.experiments.studies.ensemble import Measured
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.run_folder import claim, write_json
from loss_balance.reference_models import families

SPEC = families.resann(3, 4, 10, input_shape=(8, 8, 1))


def comparison(schemes, seeds, epochs=1):
    return Comparison(
        spec=SPEC,
        recipe=Recipe(epochs=epochs),
        source=Source("digits"),
        fingerprint="x",
        schemes=tuple(schemes),
        seeds=tuple(range(seeds)),
        adaloss=AdaLoss(len(SPEC.exits)),
        images=10,
    )


def outcome(seeds, **error):
    """Of these test errors, in %, at the four quarters: a list of seeds a scheme."""
    planned = comparison(error, seeds)
    costs = tuple(range(1, 1 + len(SPEC.exits)))
    curves = {}
    for name, rows in error.items():
        values = np.full((seeds, len(SPEC.exits)), 0.01)
        values[:, list(planned.exits)] = np.array(rows) / 100
        curves[name] = Curve(costs, 10 * values, values)
    return Outcome(planned, curves)


def finished(folder, scheme, seed=0, epochs=1, error=0.5):
    """A run's folder as training leaves it, but for weights; its exits err less and less."""
    planned = comparison([scheme], 1, epochs)
    run: Run = planned.run(scheme, seed)
    claim(folder, run.config())
    exits = len(SPEC.exits)
    errors = [error / (1 + k) for k in range(exits)]
    losses = [3 * x for x in errors]
    weights = [1.0] * exits if scheme == "const" else [(k + 1) / exits for k in range(exits)]
    line = {"train_loss": losses, "loss_weight": weights}
    lines = [str({"epoch": epoch, **line}).replace("'", '"') for epoch in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_json(
        folder / "result.json",
        {"train_loss": losses, "test_loss": losses, "test_error": errors},
    )
    for name in ("weights.npz", "statistics.npz"):
        (folder / name).touch()
    return folder


def member(name, scheme, costs, errors):
    """A measured network, whose validation errors are its test errors."""
    return Measured(
        run=f"runs/{name}-{scheme}",
        network=name,
        scheme=scheme,
        multiply_adds=tuple(1e6 * cost for cost in costs),
        milliseconds=tuple(costs),
        validation_error=tuple(errors),
        test_error=tuple(errors),
    )
