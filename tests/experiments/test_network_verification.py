"""The comparison of networks would notice what differs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("grain")

from loss_balance.experiments.verification import networks as network_verification
from loss_balance.experiments.verification.isolation import QUIET, installed
from loss_balance.experiments.verification.probes import PROBES
from loss_balance.experiments.verification.small_networks import CHAINS
from loss_balance.reference_models.description import config


def arrays():
    rng = np.random.default_rng(0)
    kinds = network_verification.TOLERANCE
    return {
        f"{kind}/net/{draw}/{i}": rng.normal(size=4)
        for kind in kinds
        for draw in range(network_verification.DRAWS)
        for i in range(2)
    }


@pytest.mark.parametrize("kind", network_verification.TOLERANCE)
@pytest.mark.parametrize("change", [1e-2, np.nan])
def test_a_network_that_differs_would_be_noticed(kind, change):
    ours, theirs = arrays(), arrays()
    for draw in range(network_verification.DRAWS):
        theirs[f"{kind}/net/{draw}/1"][2] += change
    assert not verdict(ours, theirs).agrees
    assert verdict(ours, arrays()).agrees
    assert set(verdict(ours, theirs).worst) == set(network_verification.TOLERANCE)


def test_what_a_rounding_did_to_one_draw_is_no_difference():
    ours, theirs = arrays(), arrays()
    theirs["3 SGD steps/net/1/1"][2] += 0.1
    assert verdict(ours, theirs).agrees
    theirs["3 SGD steps/net/0/1"][2] += 0.1
    theirs["3 SGD steps/net/3/0"][0] += 0.1
    assert not verdict(ours, theirs).agrees


def verdict(ours, theirs):
    worst = {}
    for name, gap in network_verification._differences(ours, theirs):
        worst[name] = max(gap, worst.get(name, 0.0))
    return network_verification.NetworkVerdict("here", worst)


def test_a_learner_without_weight_decay_would_be_noticed():
    pytest.importorskip("sklearn")
    framework = next((name for name in installed() if name in PROBES), None)
    if framework is None:
        pytest.skip("no framework is installed here")
    code = f"""
from dataclasses import replace
from loss_balance.experiments.verification import networks as verification

right = verification._epoch({framework!r})
verification.RECIPE = replace(verification.RECIPE, weight_decay=0.0)
print(max(gap for _, gap in verification._differences(right, verification._epoch({framework!r}))))
"""
    gap = float(run_code(code))
    assert gap > 3 * network_verification.TOLERANCE["learner's epoch"]


def run_code(code):
    """In a process of its own, where the framework is the only one."""
    environment = os.environ | QUIET
    return subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)


def test_every_kind_of_part_is_compared():
    found = {type(part) for spec in CHAINS for part in (spec.stem, *spec.units, *spec.heads)}
    assert found == set(config.KINDS.values())
