"""docs/results/beyond.md: its main variants are the package's schemes, its tables means."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("torch")
from support.experiments.learners import DATA, batches, ignore, make

sys.path.append(str(Path(__file__).parents[2]))  # last: the installed package stays the one tested
from benchmarks.beyond import results
from benchmarks.beyond.learner import StudyLearner
from benchmarks.beyond.report import table
from benchmarks.beyond.runs import Job
from benchmarks.beyond.variants import MAIN, VARIANTS
from loss_balance import AdaLoss
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.schemes import OPT, SCHEMES
from loss_balance.reference_models import families


@pytest.mark.parametrize("name", [name for name in MAIN if name != OPT])
def test_the_main_variants_train_as_the_package_does(name):
    kind = SCHEMES[name]
    run = make("torch", scheme=kind.make(AdaLoss(3), 21), coupling=kind.coupling)
    theirs = learner(run, DATA)
    if run.scheme.observes == "gradients":  # the study feeds the norms to AdaLoss itself
        run = replace(run, scheme=AdaLoss(3))
    ours = StudyLearner(run, DATA, VARIANTS[name])
    for batch in batches(4):
        found, wanted = (each.train_epoch([batch], 0.02, ignore) for each in (ours, theirs))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for weight, same in zip(ours.loss_weights(), theirs.loss_weights(), strict=True):
        assert weight == pytest.approx(same, rel=1e-4)


def job(variant, seed, cut=None):
    return Job(variant, seed, cut, "resann-3-4", "digits", None, False, None, None)


def test_a_table_has_the_means_at_the_quarters_and_marks_the_least():
    spec = families.resann(3, 4, 10, input_shape=(8, 8, 1))
    exits = [spec.latest_exit(f) for f in (0.25, 0.5, 0.75, 1.0)]
    found = {}
    for seed in range(2):
        for name, error in (("const", 0.5), ("guided", 0.4)):
            losses = np.arange(9.0) + seed
            found[job(name, seed)] = {"train_loss": losses, "test_error": [error + 0.1 * seed] * 9}
        for cut in set(exits):
            found[job("opt", seed, cut)] = {"train_loss": [0.1], "test_error": [0.01 * cut]}
    lines = table(spec, found).splitlines()
    const, guided, opt = (line.split(" | ") for line in lines[2:])
    assert const[1] == guided[1] == "2"
    assert const[2] == f"**{exits[0] + 0.5:.3f} ±0.707**"
    assert const[6:] == ["55.0 ±7.1"] * 3 + ["55.0 ±7.1 |"]
    assert guided[6] == "**45.0 ±7.1**"
    assert opt[2:4] == ["0.100 ±0.000"] * 2
    assert [cell.split(" ")[0] for cell in opt[6:]] == [f"{float(k):.1f}" for k in exits]


def test_results_are_packed_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PACKED", tmp_path / "packed.json")
    one = job("guided, pull 1", 3)
    assert results.known(one.setting, one.name, tmp_path) is None
    results.write(one.setting, one.name, tmp_path / "out", {"train_loss": [0.12345678]})
    assert results.known(one.setting, one.name, tmp_path / "out") == {"train_loss": [0.12345678]}
    assert results.pack(tmp_path / "out") == results.pack(tmp_path / "out") == 1
    assert results.known(one.setting, one.name, tmp_path) == {"train_loss": [0.123457]}


def test_what_is_packed_is_of_variants_that_there_are():
    packed = json.loads(results.PACKED.read_text())
    names = {
        name.rsplit(" seed ", 1)[0].split(" exit ")[0] for runs in packed.values() for name in runs
    }
    assert names <= set(VARIANTS)
    assert set(MAIN) - {"gradient-norm"} <= names
