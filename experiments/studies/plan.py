"""The runs that a training command's options mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loss_balance.checks import check_count, check_range
from loss_balance.experiments.data.sources import Dataset
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.studies.comparison import Comparison, named
from loss_balance.experiments.studies.options import ADALOSS, Options, of_panel
from loss_balance.experiments.studies.settings import set_recipe, settings, sweeps
from loss_balance.experiments.training.own import (
    check_memory,
    check_trains,
    imported,
    is_own,
    kind_of,
    network_of,
)
from loss_balance.experiments.training.recipes import RECIPES, Recipe
from loss_balance.reference_models import families


def plan(options: Options, network: str, schemes: tuple[str, ...], data: Dataset) -> Comparison:
    """The comparison that the options describe; UserError where they do not fit the data."""
    try:
        common, engine = settings(options.set or ()), options.engine()
        recipe = set_recipe(recipe_of(options), common)
        changed = named(schemes, common, sweeps(options.sweep or ()))
        spec = network_of(network, data.num_classes, data.input_shape)
        check_memory(spec)
        check_trains(spec, engine.framework, engine.precision)
        _check_divides(engine.devices, min(recipe.batch_size, len(data.y_train)))
        return Comparison(
            spec=spec,
            recipe=recipe,
            source=replace(options.source(), skip=data.skipped),
            fingerprint=data.fingerprint(),
            schemes=tuple(changed),
            changed=changed,
            seeds=options.chosen_seeds(),
            adaloss=options.adaloss(len(spec.exits)),
            images=len(data.y_train),
            engine=engine,
            guidance=options.guidance,
            evaluate_every=options.evaluate_every,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_divides(devices: int, batch: int) -> None:
    if batch % devices:
        raise ValueError(f"--devices must divide the batch of {batch} images, got {devices}")


def recipe_of(options: Options) -> Recipe:
    """The data set's recipe with what the options change; ValueError if out of range."""
    names = ("epochs", "learning_rate", "batch_size")
    changed = {name: getattr(options, name) for name in names}
    recipe = RECIPES[options.data]
    return replace(recipe, **{k: v for k, v in changed.items() if v is not None})


def check(options: Options, network: str, schemes: tuple[str, ...]) -> None:
    """UserError for any option that is wrong whatever the data are: before these are loaded."""
    if options.data not in RECIPES:
        return  # loading says it
    try:
        check_range("guidance", options.guidance, 0.0, 1.0, open_low=True)  # at 0 it guides nobody
        if options.evaluate_every:
            check_count("evaluate_every", options.evaluate_every)
        recipe_of(options)
        options.adaloss(2)
        for name in schemes or ("",):
            kind_of(name)
        sweeps(options.sweep or ()), settings(options.set or ())
        if is_own(network):
            imported(network)
        else:
            check_memory(families.get(network))
    except ValueError as error:
        raise UserError(str(error)) from error


def config_of(options: Options, comparison: Comparison, **more: Any) -> dict[str, Any]:
    """What `config.json` of a command keeps: equal ones train the same runs."""
    computing, source = comparison.engine.config(), comparison.source.config()
    recipe, adaloss = comparison.recipe, comparison.adaloss
    return {
        "framework": computing.pop("framework"),
        **computing,
        "data": source.pop("name"),
        **source,
        "network": comparison.spec.name,
        "schemes": list(comparison.schemes),
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "batch_size": recipe.batch_size,
        "seeds": list(comparison.seeds),
        **{f.name: getattr(adaloss, f.name) for f in of_panel(ADALOSS)},
        "guidance": comparison.guidance,
        "set": sorted(options.set or ()),
        "sweep": list(options.sweep or ()),
        "data_fingerprint": comparison.fingerprint,
        **more,
    }
