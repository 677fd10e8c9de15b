"""What a study needs of the commands: settings, sweeps, one's own schemes and networks, logs."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
from support.experiments.command_line import call, one_line, train


def test_settings_reach_recipe_and_scheme_from_options_and_file(tmp_path):
    (tmp_path / "study.toml").write_text(
        'epochs = 1\ndata = "digits"\n[set]\nmomentum = 0.5\ndecay = 0.95\n'
    )
    status, *_ = call("train", "--config", "study.toml", "--network", "resann-1-4", "--out", "one")
    assert status == 0
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (config["recipe"]["momentum"], config["scheme"]["decay"]) == (0.5, 0.95)
    (tmp_path / "study.toml").write_text("epoch = 1\n")
    assert "options of this command, got epoch" in one_line(
        *call("train", "--config", "study.toml")
    )


OWN = """
from dataclasses import dataclass
import loss_balance
from loss_balance.reference_models import families

@dataclass(frozen=True)
class Halves(loss_balance.AdaLoss):
    def weigh(self, average, step, xp):
        return xp.full_like(average, 0.5)

def small(num_classes, input_shape):
    return families.resann(1, 4, num_classes=num_classes, input_shape=input_shape)
"""


def test_schemes_and_networks_of_ones_own_sweeps_and_chosen_seeds(tmp_path):
    (tmp_path / "mine_of_the_field.py").write_text(OWN)
    status, said, complaint = call(
        *("compare", "--data", "digits", "--epochs", "1", "--seeds", "3,5", "--jobs", "2"),
        *("--network", "mine_of_the_field:small", "--sweep", "gamma=0,0.5", "--json"),
        *("--schemes", "adaloss,mine_of_the_field:Halves", "--out", "study"),
    )
    assert status == 0, complaint
    schemes = json.loads(said)["schemes"]
    assert list(schemes) == [
        "adaloss gamma=0",
        "adaloss gamma=0.5",
        "Halves gamma=0",
        "Halves gamma=0.5",
    ]
    folders = {path.name for path in (tmp_path / "study" / "runs").iterdir()}
    assert {"adaloss-gamma=0-seed3", "Halves-gamma=0.5-seed5"} <= folders
    metrics = (tmp_path / "study" / "runs" / "Halves-gamma=0-seed3" / "metrics.jsonl").read_text()
    assert json.loads(metrics.splitlines()[-1])["loss_weight"] == [0.5] * 3
    status, said, _ = call(
        "runs", "study", "--where", "scheme gamma=0.5", "--where", "seed=5", "--json"
    )
    assert status == 0
    assert len(json.loads(said)) == 2
    assert "must be of" in one_line(*call("runs", "study", "--where", "gama=0.5"))
    more = call(
        *("compare", "--data", "digits", "--epochs", "1", "--seeds", "3,5,6", "--jobs", "2"),
        *("--network", "mine_of_the_field:small", "--sweep", "gamma=0,0.5", "--resume"),
        *("--schemes", "adaloss,mine_of_the_field:Halves", "--out", "study"),
    )
    assert more[0] == 0, more[2]
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 12


def test_a_folder_of_images_is_checked_and_trained_without_the_broken_ones(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("grain")
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for k in range(3):
                image.new("RGB", (8, 8), (20 * k, 0, 0)).save(
                    tmp_path / "set" / split / name / f"{k}.png"
                )
    assert call("data", "check", "set")[0] == 0
    (tmp_path / "set" / "train" / "a" / "1.png").write_bytes(b"no image")
    status, said, _ = call("data", "check", "set", "--json")
    assert status == 1
    assert list(json.loads(said)["broken"]) == ["train/a/1.png"]
    more = ("--data", "imagefolder", "--path", "set", "--network", "resann-1-4-every-3")
    more += ("--batch-size", "5", "--epochs", "1", "--skip-broken", "--out", "run")
    status, said, complaint = call("train", *more)
    assert status == 0, complaint
    assert "1 of 12 images cannot be read and are left out" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["skip"] == ["train/a/1.png"]


def test_epochs_are_logged_by_the_writers_that_users_have(tmp_path):
    status, *_ = train(tmp_path / "run", "--log", "csv", "--evaluate-every", "1")
    assert status == 0
    header, row = (tmp_path / "run" / "epochs.csv").read_text().splitlines()
    assert header.startswith("epoch,train_loss/exit1")
    assert len(row.split(",")) == len(header.split(",")) == 1 + 4 * 3 + 2
    pytest.importorskip("tensorboard")
    status, *_ = train(tmp_path / "run", "--log", "tensorboard", "--overwrite")
    assert status == 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
