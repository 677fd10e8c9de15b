"""Schemes as plain JSON values: what Keras writes into a saved model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from support.balancers.contract import SCHEMES
from support.balancers.strategies import runs

from loss_balance import AdaLoss, Constant, LinearSchedule
from loss_balance.backends.interface import scheme_config, scheme_from_config


def through_json(scheme):
    return scheme_from_config(json.loads(json.dumps(scheme_config(scheme))))


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_scheme_comes_back_equal(scheme):
    assert through_json(scheme) == scheme


@given(runs(steps=1))
def test_any_adaloss_comes_back_equal(drawn):
    assert through_json(drawn[0]) == drawn[0]


@dataclass(frozen=True)
class Mine(Constant):
    depth: int = 3


def test_a_scheme_of_ones_own_comes_back_once_its_class_is_there():
    assert through_json(Mine(2, depth=5)) == Mine(2, depth=5)


def test_what_json_cannot_hold_is_named():
    with pytest.raises(ValueError, match="numbers and LinearSchedule, got gamma=<function"):
        scheme_config(AdaLoss(2, gamma=lambda step, xp, dtype: 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Popen"}, "expected a config of one of .*AdaLoss.*, got 'Popen'"),
        ({"class": None}, "got None"),
        ({"class": ["AdaLoss"]}, r"got \['AdaLoss'\]"),
        ({"speed": 3}, "a config that AdaLoss does not take: .*speed"),
        ({"decay": 2.0}, r"decay must be a number in \[0, 1\), got 2.0"),
        ({"gamma": scheme_config(Constant(2))}, r"one of \['LinearSchedule'\], got 'Constant'"),
    ],
)
def test_a_foreign_config_is_refused(change, message):
    schedule = AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 5))
    with pytest.raises(ValueError, match=message):
        scheme_from_config(scheme_config(schedule) | change)
