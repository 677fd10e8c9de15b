"""The paper's recipes (Section 5.1) and what `--epochs` does to them."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from loss_balance.experiments.data.sources import NAMES
from loss_balance.experiments.training.recipes import RECIPES, Recipe, epoch_order

PAPER = {  # data set: (epochs, falls of the learning rate)
    "cifar10": (300, (150, 225)),
    "cifar100": (300, (150, 225)),
    "svhn": (60, (30, 45)),
    "imagefolder": (90, (30, 60)),
}


def falls(recipe):
    rates = [recipe.rate(epoch) for epoch in range(recipe.epochs)]
    return tuple(e for e in range(1, recipe.epochs) if rates[e] < rates[e - 1])


@pytest.mark.parametrize("name", PAPER)
def test_the_published_sets_are_trained_as_in_the_paper(name):
    recipe = RECIPES[name]
    assert (recipe.epochs, falls(recipe)) == PAPER[name]
    assert recipe.momentum == 0.9
    assert recipe.weight_decay == 1e-4
    rates = sorted({recipe.rate(epoch) for epoch in range(recipe.epochs)}, reverse=True)
    assert rates == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("epochs", [12, 24, 36, 1200])
def test_epochs_rescales_the_schedule(name, epochs):
    published, at = PAPER[name]
    shorter = replace(RECIPES[name], epochs=epochs)
    assert falls(shorter) == tuple(fall * epochs // published for fall in at)


@pytest.mark.parametrize("thirds", range(1, 400))
def test_a_third_is_a_third(thirds):
    recipe = Recipe(epochs=3 * thirds, milestones=(1 / 3, 2 / 3))
    assert recipe.rate(thirds - 1) == recipe.learning_rate
    assert recipe.rate(thirds) == pytest.approx(recipe.learning_rate / 10)
    assert recipe.rate(2 * thirds - 1) == pytest.approx(recipe.learning_rate / 10)
    assert recipe.rate(2 * thirds) == pytest.approx(recipe.learning_rate / 100)


def test_every_data_set_has_a_recipe():
    assert set(RECIPES) == set(NAMES)


def test_a_recipe_is_frozen_and_goes_into_json():
    recipe = RECIPES["imagefolder"]
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 1
    again = json.loads(json.dumps(asdict(recipe)))
    assert Recipe(**{**again, "milestones": tuple(again["milestones"])}) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"milestones": (0.75, 0.5)}, r"milestones must ascend, got \(0.75, 0.5\)"),
        ({"milestones": (0.5, 0.5)}, "milestones must ascend"),
        ({"milestones": (1.5,)}, r"milestones must be a number in \(0, 1\), got 1.5"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_recipe_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"epochs": 4, **change})


def test_every_epoch_has_its_own_order_and_drops_the_last_incomplete_batch():
    recipe = Recipe(epochs=2, batch_size=4)
    first, second = (epoch_order(0, epoch, 10, recipe) for epoch in range(2))
    assert first.shape == (2, 4)
    assert len(set(first.ravel())) == 8
    assert first.tolist() != second.tolist()
    assert epoch_order(0, 0, 10, recipe).tolist() == first.tolist()


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert epoch_order(0, 0, 3, Recipe(epochs=1, batch_size=4)).shape == (1, 3)
