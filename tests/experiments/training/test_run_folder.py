from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from threading import Event, Thread

import pytest

pytest.importorskip("filelock")
from loss_balance import AdaLoss, LinearSchedule, Single, Static
from loss_balance.backends.interface import scheme_config
from loss_balance.experiments.errors import Interruption, UserError
from loss_balance.experiments.training.run_folder import alone, claim
from loss_balance.experiments.training.schemes import SCHEMES, Coupling, modern, name_of

HOLD = """
import sys
from pathlib import Path
from loss_balance.experiments.training.run_folder import alone
with alone(Path(sys.argv[1]), lambda: False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that has the run's folder, until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_run_is_one_processs_at_a_time_and_the_others_wait(other, tmp_path):
    asked, entered = [], Event()

    def second():
        with alone(tmp_path / "run", lambda: asked.append(entered.is_set())):
            entered.set()

    thread = Thread(target=second, daemon=True)
    thread.start()
    while len(asked) < 3:
        assert thread.is_alive()
    other.kill()  # whoever dies lets go
    assert entered.wait(60)
    thread.join()
    assert not any(asked)


def test_who_waits_can_be_stopped(other, tmp_path):
    answers = iter([False, False, True])
    with pytest.raises(Interruption), alone(tmp_path / "run", lambda: next(answers)):
        raise AssertionError("entered")


def test_the_next_one_enters_once_the_first_has_left(tmp_path):
    for _ in range(2):
        with alone(tmp_path / "new" / "run", lambda: False):
            pass


OLD = "AdaLoss(num_losses=3, gamma={}, decay=0.9, final_weight=1.0, update_every=1, floor=1e-08)"


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        (OLD.format(0.1), AdaLoss(3, gamma=0.1, decay=0.9)),
        (
            OLD.format("LinearSchedule(start=1.0, stop=0.0, steps=7)"),
            AdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 7), decay=0.9),
        ),
        ("Static(weights=(1.0, 0.5))", Static([1.0, 0.5])),
        ("Single(num_losses=1, index=-1)", Single(1)),
    ],
)
def test_a_configuration_of_version_0_1_is_that_of_the_same_scheme(text, scheme):
    assert modern({"seed": 1, "scheme": text}) == {"seed": 1, "scheme": scheme_config(scheme)}


def test_a_hyperparameter_that_came_later_has_its_default():
    config = scheme_config(AdaLoss(3))
    del config["warmup"]
    assert modern({"scheme": config}) == {"scheme": scheme_config(AdaLoss(3))}


def test_a_comparison_of_version_0_1_called_its_framework_backend():
    assert modern({"backend": "jax", "seeds": 2}) == {"framework": "jax", "seeds": 2}


def test_what_came_before_equilibrium_was_coupled_by_the_sum_alone():
    run = {"spec": {}, "scheme": scheme_config(AdaLoss(3))}
    assert modern(run)["coupling"] == asdict(Coupling())
    mine = {**run, "coupling": asdict(Coupling(equilibrium=True))}
    assert modern(mine) == mine
    assert modern({"schemes": ["const"], "seeds": 2})["guidance"] == 1.0


def test_schemes_of_one_class_are_told_apart_by_their_coupling():
    for name, kind in SCHEMES.items():
        scheme = kind.make(AdaLoss(3), 5)
        assert name_of(scheme_config(scheme), kind.coupling) == name
    weaker = replace(SCHEMES["guided"].coupling, guidance=0.25, rising=False, pull=0.0)
    assert name_of(scheme_config(AdaLoss(3)), weaker) == "guided"


@pytest.mark.parametrize(
    "text", ["open('x')", "AdaLoss(3)", "AdaLoss(num_losses=3, gamma=f(x))", "1 +"]
)
def test_a_text_that_is_no_scheme_is_refused_and_never_evaluated(text):
    with pytest.raises(ValueError, match=r"a scheme must be CLASS\(NAME=VALUE"):
        modern({"scheme": text})


def test_a_scheme_of_someone_elses_is_left_as_it_is():
    config = {"scheme": {"class": "Elsewhere", "num_losses": 3}}
    assert modern(config) == config


def test_the_folder_of_an_old_run_is_its_own_still(tmp_path):
    old = {"name": "a", "scheme": OLD.format(0.1)}
    claim(tmp_path, old)
    claim(tmp_path, {"name": "a", "scheme": scheme_config(AdaLoss(3, gamma=0.1, decay=0.9))})
    with pytest.raises(UserError, match="holds another run"):
        claim(tmp_path, {"name": "a", "scheme": scheme_config(AdaLoss(3, decay=0.9))})
