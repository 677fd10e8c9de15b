"""What a comparison is made of: the options of a training command, and the runs they mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from loss_balance.checks import check_count
from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.reference_models import families
from loss_balance.schemes.adaloss import AdaLoss


@dataclass(frozen=True)
class Options:
    """What the user asked for, as `config.json` of the comparison keeps it."""

    engine: Engine
    source: Source
    network: str
    schemes: tuple[str, ...]
    epochs: int | None
    learning_rate: float | None
    batch_size: int | None
    seeds: int
    gamma: float
    decay: float
    final_weight: float


def plan(options: Options, data: Dataset) -> Comparison:
    """The comparison that the options describe; UserError where they do not fit the data."""
    changed: dict[str, Any] = {
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
    }
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        check_count("seeds", options.seeds)
        recipe = replace(RECIPES[options.source.name], **given)
        spec = families.get(
            options.network, num_classes=data.num_classes, input_shape=data.input_shape
        )
        adaloss = AdaLoss(
            len(spec.exits),
            gamma=options.gamma,
            decay=options.decay,
            final_weight=options.final_weight,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Comparison(
        spec,
        recipe,
        options.source,
        data.fingerprint(),
        options.schemes,
        tuple(range(options.seeds)),
        adaloss,
        len(data.y_train),
        options.engine,
    )


def config_of(options: Options, comparison: Comparison) -> dict[str, Any]:
    """What `config.json` of the command keeps: equal ones train the same runs."""
    given = asdict(options)
    engine, source = given.pop("engine"), options.source.config()
    del given["source"]  # with its path, which JSON cannot hold
    return {
        "backend": engine.pop("framework"),
        **engine,
        "data": source.pop("name"),
        **source,
        **given,
        "schemes": list(options.schemes),
        "epochs": comparison.recipe.epochs,
        "learning_rate": comparison.recipe.learning_rate,
        "batch_size": comparison.recipe.batch_size,
        "data_fingerprint": comparison.fingerprint,
    }
