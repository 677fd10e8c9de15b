"""The scripts in examples/ run, learn, and find again what they saved."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"train_torch": "torch", "train_keras": "tensorflow", "train_jax": "optax"}


def printed(name, *needed):
    for module in (*needed, "sklearn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here")
    command = [sys.executable, ROOT / "examples" / f"{name}.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", TRAINING)
def test_training_learns_every_task_and_goes_on_from_its_file(name):
    text = printed(name, TRAINING[name])
    epochs = re.findall(r"epoch \d+: digit ([\d.]+)  ink ([\d.]+)  picture ([\d.]+)", text)
    assert len(epochs) == 4
    digit, ink, picture = (float(loss) for loss in epochs[-1])
    assert digit < 1.5  # of log 10 = 2.3
    assert ink < 100  # of 90,000
    assert picture < 25  # of 60
    weights = [float(w) for w in re.findall(r"loss_weight/\w+ ([\d.]+)", text)]
    assert len(weights) == 3
    assert max(weights) == 1.0
    assert "came back" in text
    assert text.rstrip().endswith("True")


def test_answers_come_by_the_deadline_and_within_the_budget():
    text = printed("answer_by_deadline", "torch")
    assert "from exit 0, late" in text
    assert "from exit 2\n" in text
    right, cost = re.search(r"early exits: ([\d.]+) % right at ([\d.]+) of", text).groups()
    assert float(right) > 50
    assert float(cost) < 0.7


def test_every_example_is_run():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {*TRAINING, "answer_by_deadline"}
