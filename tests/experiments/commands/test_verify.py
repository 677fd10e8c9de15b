"""`loss-balance verify` agrees where all is well, and would notice where it is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from loss_balance.experiments.verification import balancers
from loss_balance.experiments.verification.balancers import STEPS, draw, verify
from loss_balance.experiments.verification.isolation import installed


def test_every_installed_framework_agrees_with_the_oracle(tmp_path):
    verdicts = list(verify(tmp_path, 20, 0))
    assert [verdict.framework for verdict in verdicts] == installed()
    for verdict in verdicts:
        assert verdict.agrees, verdict
        assert verdict.sequences == 20
        assert 0 < verdict.worst["float32"] < 1e-6
        assert verdict.continued is None or 0 < verdict.continued < 1e-6


def test_the_cases_hold_every_kind_of_value():
    cases = list(draw(100, 0))
    assert all(len(case.steps) == STEPS for case in cases)
    values = [x for case in cases for losses in case.steps for x in losses]
    numbers = np.array([x for x in values if x is not None])
    assert None in values
    assert np.isnan(numbers).any()
    assert np.isinf(numbers).any()
    assert (numbers == 0).any()
    assert (numbers < 0).any()
    sizes = numbers[np.isfinite(numbers) & (numbers > 0)]
    assert sizes.min() < 1e-5
    assert sizes.max() > 1e5
    assert any(callable(case.scheme.gamma) for case in cases)
    assert any(case.scheme.final_weight != 1 for case in cases)
    assert any(case.scheme.update_every > 1 for case in cases)


def test_the_same_seed_draws_the_same_cases():
    def numbers(seed):
        return repr([(case.scheme, case.steps) for case in draw(5, seed)])

    assert numbers(3) == numbers(3)
    assert numbers(3) != numbers(4)


def test_a_wrong_formula_would_be_noticed(tmp_path, monkeypatch):
    class Wrong(balancers.Oracle):
        def update(self, losses):
            return [w * (1 + 1e-5) for w in super().update(losses)]

    monkeypatch.setattr(balancers, "Oracle", Wrong)
    errors = balancers._first_round("numpy", tmp_path, list(draw(5, 0)))
    assert min(errors.values()) > 1e-6


def test_a_state_that_does_not_continue_would_be_noticed(tmp_path):
    cases = list(draw(20, 0))
    balancers._first_round("numpy", tmp_path, cases)
    for file in (tmp_path / "numpy").iterdir():
        state = dict(np.load(file))
        np.savez(
            file, **state | {"average": state["average"] * np.linspace(1, 2, len(state["average"]))}
        )
    for name in installed():
        if name != "numpy":
            (tmp_path / name).symlink_to(tmp_path / "numpy")
    assert balancers._second_round("numpy", tmp_path, cases)["float32"] > 1e-6


def test_the_command_prints_a_row_per_framework():
    pytest.importorskip("typer")
    code = "from loss_balance.experiments.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", "--no-networks", "--sequences", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agrees") == len(installed())
    bad = subprocess.run([*command[:-1], "0"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "sequences must be a whole number of at least 1" in bad.stderr
