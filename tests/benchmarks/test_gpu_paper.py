"""The paper's comparison of `benchmarks/gpu.sh`, at its smallest on a CPU."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")
from support.gpu_tools import ROOT, checkout_python

from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.watching import Step
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.run_folder import claim
from loss_balance.reference_models import families
from loss_balance.schemes.adaloss import AdaLoss

STEP = 0.25  # seconds that a step takes on the clock of `clockwork`
SMALLEST = ("-m", "benchmarks.gpu.paper", "--out", "out", "--device", "cpu", "--smallest")


def figures(tmp_path):
    """What the part left behind."""
    return json.loads((tmp_path / "out" / "paper.json").read_text())


def table(found, name):
    """Rows of one table by their names."""
    return {row["name"]: row for row in found["rows"] if row["table"] == name}


def test_every_scheme_and_opt_is_reported_and_a_second_call_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHEMES", "const,adaloss,no-such-scheme,opt")
    monkeypatch.delenv("EPOCHS", raising=False)
    python = checkout_python(tmp_path)
    python(*SMALLEST, "--seconds", "300")
    found = figures(tmp_path)
    assert found["complete"]
    assert not found["failed"]
    assert [one["name"] for one in found["skipped"]] == ["no-such-scheme"]
    for metric in ("test_error", "train_loss"):
        rows = table(found, metric)
        assert set(rows) == {"const", "adaloss", "opt"}
        assert rows["opt"]["1 over OPT, %"] == 0.0
        assert rows["const"]["1 over OPT, %"] != 0.0
    trained = table(found, "training")
    assert len(trained) == 5
    for row in trained.values():
        assert row["finished"]
        assert row["epochs"] == row["of"] == 1
        assert row["images_per_second"] > 0
    (runs,) = (tmp_path / "out" / "paper").glob("*/runs")
    before = {file: file.stat().st_mtime_ns for file in runs.glob("*/result.json")}
    assert len(before) == 5
    assert not list(runs.glob("*/checkpoint.npz"))  # what comes back is small
    python(*SMALLEST, "--seconds", "300")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert figures(tmp_path)["rows"] == found["rows"]


def test_time_that_is_over_leaves_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHEMES", "const,adaloss")
    monkeypatch.setenv("EPOCHS", "9999")
    python = checkout_python(tmp_path)
    assert python(*SMALLEST, "--seconds", "12").returncode == 0
    found = figures(tmp_path)
    assert found["complete"]
    assert not found["failed"]
    assert {one["name"] for one in found["skipped"]} == {"const", "adaloss"}
    (runs,) = (row for row in found["rows"] if row["table"] == "runs")
    assert runs["finished"] == 0
    assert runs["of"] == 2


@pytest.fixture
def parts(monkeypatch):
    """Modules of the paper's part."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import paper_epochs, paper_folder, paper_training

    return paper_epochs, paper_folder, paper_training


@pytest.fixture
def clockwork(parts, monkeypatch):
    """Workers that report every tenth of their steps, each of `STEP` seconds, once started."""
    epochs, _, training = parts
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def execute(runs, folder, jobs, watches):
        steps = runs[0].recipe.batches(IMAGES)
        now[0] += 5.0  # starting
        for position in range(0, 10_000, 10):
            epoch, step = divmod(position, steps)
            for run in runs:
                for watch in watches:
                    watch.on_step(Step(run.name, epoch, step, 1.0))
            now[0] += 10 * STEP
        raise AssertionError("nobody stopped the workers")

    monkeypatch.setattr(training, "execute", execute)
    return epochs


IMAGES = 6400


def comparison(network="resann-1-4"):
    spec = families.get(network, num_classes=10, input_shape=(8, 8, 1))
    return Comparison(
        spec=spec,
        recipe=Recipe(epochs=1, batch_size=64),
        source=Source("digits"),
        fingerprint="",
        schemes=("const", "adaloss"),
        seeds=(0,),
        adaloss=AdaLoss(len(spec.exits)),
        images=IMAGES,
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_measured_epochs_fill_the_time_whatever_share_of_the_steps_is_reported(
    clockwork, tmp_path, jobs
):
    from benchmarks.gpu.attempts import Clock

    seconds = 2000.0
    epochs, rate = clockwork.measured(comparison(), tmp_path, jobs, Clock(seconds))
    assert rate == pytest.approx(64 * jobs / STEP)
    one = STEP * IMAGES / 64 * (2 / jobs)  # seconds of an epoch of both runs
    assert 0.7 * seconds < epochs * one < seconds


def test_nothing_is_kept_of_a_measurement_that_came_to_nothing(clockwork, tmp_path):
    from benchmarks.gpu.attempts import Clock

    assert clockwork.epochs_of(comparison(), tmp_path, 2, Clock(12.0), "") is None
    assert not (tmp_path / "epochs.json").exists()


def test_results_of_another_network_are_not_taken_for_this_ones(parts, tmp_path):
    _, folder, _ = parts
    (run, *_) = comparison("resann-1-4").runs()
    claim(tmp_path / run.name, run.config())
    (tmp_path / run.name / "result.json").write_text("{}")
    assert folder.finished_runs([run], tmp_path) == {run.name: {}}
    (other, *_) = comparison("resann-2-4").runs()
    with pytest.raises(UserError, match="another run"):
        folder.finished_runs([other], tmp_path)


def test_what_comes_back_has_the_results_and_as_many_checkpoints_as_fit(parts, tmp_path):
    _, folder, _ = parts
    runs = [replace(run, name=name) for run in comparison().runs()[:1] for name in "abc"]
    for run in runs:
        own = tmp_path / run.name
        own.mkdir()
        for name in ("checkpoint.npz", "previous.npz", "weights.npz"):
            (own / name).write_bytes(bytes(2**20))
    (tmp_path / "a" / "result.json").write_text("{}")
    assert folder.lighten(runs, tmp_path, 1.5) == ["c"]
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.glob("*/*")}
    assert left == {"a/result.json", "b/checkpoint.npz"}


def test_without_images_the_part_is_skipped_by_name(tmp_path):
    python = checkout_python(tmp_path)
    done = python("-m", "benchmarks.gpu.paper", "--out", "out", "--device", "cpu")
    assert done.returncode == 0
    (skipped,) = json.loads((tmp_path / "out" / "paper.json").read_text())["skipped"]
    assert skipped["name"] == "paper"


def test_packed_images_come_out_as_they_went_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import images

    monkeypatch.setattr(images.tempfile, "gettempdir", lambda: str(tmp_path))
    drawn = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    files = []
    for image in drawn:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    packed = {}
    for split, chosen in (("train", files[:5]), ("test", files[5:])):
        packed[f"{split}_bytes"] = np.frombuffer(b"".join(chosen), np.uint8)
        packed[f"{split}_offsets"] = np.cumsum([0, *map(len, chosen)])
        packed[f"{split}_labels"] = np.arange(len(chosen))
    np.savez(tmp_path / "packed.npz", **packed)
    source = images.source_of(str(tmp_path / "packed.npz"), smallest=False)
    with np.load(source.path) as content:
        np.testing.assert_array_equal(content["x_train"], drawn[:5])
        np.testing.assert_array_equal(content["x_test"], drawn[5:])
        assert content["y_test"].tolist() == [0, 1]
