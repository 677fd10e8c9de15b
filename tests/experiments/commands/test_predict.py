"""`loss-balance predict`: which image is answered, by which exit, and what is said of the time."""

from __future__ import annotations

import re
import shutil
import sys

import numpy as np
import pytest
from support.experiments.standardising import standardise

pytest.importorskip("sklearn")
pytest.importorskip("typer")
torch = pytest.importorskip("torch")

from PIL import Image

from loss_balance import AdaLoss
from loss_balance.experiments import cli
from loss_balance.experiments.commands.predict import seconds
from loss_balance.experiments.data.preparation import Preparation, preparation_for, read
from loss_balance.experiments.data.sources import Source, load
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.trained import read as read_run
from loss_balance.experiments.training.learners.torch import TorchLearner
from loss_balance.experiments.training.loop import Run, train
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.torch import AnytimeNet

SPEC = families.resann(1, 4, 10, input_shape=(8, 8, 1))
TEST = load("digits")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on digits with held-out images."""
    folder = tmp_path_factory.mktemp("run")
    source = Source("digits", validation=True)
    data = source.load()
    recipe = Recipe(epochs=4, batch_size=64)
    chosen = Run(
        name="adaloss",
        spec=SPEC,
        scheme=AdaLoss(3),
        recipe=recipe,
        seed=0,
        source=source,
        fingerprint=data.fingerprint(),
    )
    train(chosen, TorchLearner(chosen, data), data, folder, lambda *_: True)
    return folder


@pytest.fixture
def predict(run, monkeypatch, capsys):
    """The command in this process: (exit status, what it printed, what it complained of)."""

    def call(*arguments, folder=run):
        monkeypatch.setattr(
            sys, "argv", ["loss-balance", "predict", str(folder), *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


def logits_of(run, image):
    """Of each exit, for pixels (H, W, C) as in the data set."""
    net = AnytimeNet(SPEC).eval()
    net.load_weights(weights.load(run / "weights.npz"))
    data = load("digits", validation=True)
    with torch.no_grad():
        x = torch.from_numpy(standardise(data, image[None])).permute(0, 3, 1, 2)
        return [logits[0].double() for logits in net(x)]


def answer_in(printed):
    """(class, probability, exit) as printed."""
    found = re.search(r"class (\S+), probability (\S+?)(?: \(|\n).*exit (\d+) of 3 ", printed, re.S)
    return found[1], float(found[2]), int(found[3])


def test_without_a_deadline_the_answer_is_that_of_the_best_exit(run, predict):
    status, printed, _ = predict("test:17")
    assert status == 0
    label, probability, exit_ = answer_in(printed)
    logits = logits_of(run, TEST.x_test[17])[exit_ - 1]
    assert label == str(int(logits.argmax()))
    assert probability == pytest.approx(float(logits.softmax(0).max()), abs=6e-4)
    right = int(logits.argmax()) == TEST.y_test[17]
    assert ("(right)" in printed) == right
    assert right or f"(wrong: it is {TEST.y_test[17]})" in printed
    assert "no deadline" in printed
    assert "late" not in printed


def test_samples_may_leave_a_trained_network_one_by_one(run):
    network = read_run(run).network
    images = np.random.default_rng(0).standard_normal((4, *SPEC.input_shape), np.float32)
    whole = [np.asarray(logits) for logits in network.anytime(images)]
    answers = network.anytime(images)
    assert np.array_equal(next(answers), whole[0])
    assert np.allclose(answers.send(np.array([3, 1])), whole[1][[3, 1]], atol=1e-5)
    assert np.allclose(answers.send([1]), whole[2][[1]], atol=1e-5)
    with pytest.raises(StopIteration):
        next(answers)


def test_a_deadline_that_no_exit_can_keep_gives_the_first_one_and_says_so(predict):
    status, printed, _ = predict("test:0", "--deadline", "0ms")
    assert status == 0
    assert answer_in(printed)[2] == 1
    assert "deadline 0 ms, late: not even the first exit was in time" in printed


def test_times_are_told(predict):
    _, printed, _ = predict("test:0", "--deadline", "1s")
    after, returned = re.search(
        r"after (\d+\.\d\d) ms, returned after (\d+\.\d\d) ms, deadline 1000 ms", printed
    ).groups()
    assert float(after) <= float(returned)


def test_an_image_file_gives_the_answer_of_its_pixels(run, predict, tmp_path):
    pixels = TEST.x_test[3]
    grey = np.rint(pixels[..., 0] * (255 / 16)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(tmp_path / "colour.bmp")
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "flat.npy", pixels[..., 0].astype(float))
    expected = answer_in(predict("test:3")[1])
    for name in ("grey.png", "colour.bmp", "pixels.npy", "flat.npy"):
        status, printed, _ = predict(tmp_path / name)
        found = answer_in(printed)
        assert (status, found[0], found[2]) == (0, expected[0], expected[2]), name
        assert found[1] == pytest.approx(expected[1], abs=0.01)
        assert "right" not in printed  # nothing is known of it


def test_a_larger_image_is_scaled_and_cropped_in_the_centre(run, tmp_path):
    prepared = read(run / "statistics.npz", (8, 8, 1))
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, size=(8, 8), dtype=np.uint8)
    wide = np.full((8, 14), 255, np.uint8)
    wide[:, 3:11] = tile
    Image.fromarray(wide).save(tmp_path / "wide.png")
    expected = prepared.standardise(tile[None, ..., None] * np.float32(16 / 255))
    np.testing.assert_allclose(prepared.open(tmp_path / "wide.png", (8, 8, 1)), expected, rtol=1e-6)
    flat = np.full((80, 60), 51, np.uint8)
    Image.fromarray(flat).save(tmp_path / "large.png")
    large = prepared.open(tmp_path / "large.png", (8, 8, 1))
    np.testing.assert_allclose(large * prepared.std + prepared.mean, 51 * 16 / 255, rtol=1e-4)


def test_images_of_a_streamed_set_are_cropped_as_its_test_images(tmp_path):
    stream = pytest.importorskip("loss_balance.experiments.data.stream")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, size=(300, 420, 3), dtype=np.uint8))
    picture.save(tmp_path / "photo.png")
    prepared = Preparation(np.zeros(3, np.float32), np.ones(3, np.float32), 255.0, True, ())
    found = prepared.open(tmp_path / "photo.png", (224, 224, 3))
    np.testing.assert_array_equal(found[0], np.asarray(stream.crop_evaluation(picture)))


def test_a_run_keeps_what_makes_an_image_its_input(run):
    data = load("digits", validation=True)
    prepared = read(run / "statistics.npz", (8, 8, 1))
    np.testing.assert_array_equal(prepared.mean, data.mean)
    np.testing.assert_array_equal(prepared.std, data.std)
    assert (prepared.white, prepared.streamed) == (16.0, False)
    assert prepared.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("low", "high", "white"), [(0, 1, 1), (0, 16, 16), (0, 17, 255), (0, 255, 255)]
)
def test_white_is_the_least_usual_scale_that_holds_all_pixels(low, high, white, tmp_path):
    assert preparation_for(own_data(tmp_path, low, high)).white == white


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 4000)])
def test_data_that_are_no_pictures_take_arrays_alone(low, high, tmp_path):
    prepared = preparation_for(own_data(tmp_path, low, high))
    Image.new("L", (2, 2)).save(tmp_path / "picture.png")
    with pytest.raises(UserError, match=r"picture.png must be a .npy"):
        prepared.open(tmp_path / "picture.png", (2, 2, 1))
    np.save(tmp_path / "array.npy", np.full((2, 2), high))
    assert prepared.open(tmp_path / "array.npy", (2, 2, 1)).shape == (1, 2, 2, 1)


def own_data(folder, low, high):
    x = np.linspace(low, high, 40, dtype=np.float32).reshape(10, 2, 2, 1)
    y = np.arange(10) % 2
    np.savez(folder / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return load("npz", folder / "own.npz")


def test_without_class_names_the_number_is_told(run, predict, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    with np.load(run / "statistics.npz") as arrays:
        np.savez(
            tmp_path / "run" / "statistics.npz",
            **{**arrays, "class_names": np.array([], dtype=np.str_)},
        )
    expected = answer_in(predict("test:5")[1])[0]
    assert answer_in(predict("test:5", folder=tmp_path / "run")[1])[0] == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("20ms", 0.02), ("0.5s", 0.5), ("1s", 1.0), ("1.5 ms", 0.0015), ("300us", 3e-4), (".5s", 0.5)],
)
def test_deadlines_are_read(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["20", "fast", "-1ms", "1m", "1e3ms", "", "infs"])
def test_other_deadlines_are_named(text):
    with pytest.raises(UserError, match=r"--deadline must be a time like 20ms or 0.5s, got"):
        seconds(text)


def test_what_cannot_be_answered_is_named(predict, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "wrong.npy", np.zeros((8, 9)))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    cases = [
        ("missing.png", "no file missing.png: IMAGE is an image, a .npy or a test image"),
        ("test:450", "IMAGE must be test:0 to test:449, got test:450"),
        (tmp_path / "broken.png", "broken.png must be a whole image, got"),
        (tmp_path / "broken.npy", "broken.npy must be one array of numbers, got"),
        (tmp_path / "objects.npy", "objects.npy must be one array of numbers, got"),
        (tmp_path / "wrong.npy", "must hold finite numbers of shape (8, 8, 1), got float64 (8, 9"),
        (tmp_path / "nan.npy", "must hold finite numbers"),
    ]
    for image, message in cases:
        status, printed, complaint = predict(image)
        assert (status, printed, message in complaint) == (2, "", True), (image, complaint)
        assert len(complaint.splitlines()) == 1
    status, _, complaint = predict("test:0", "--deadline", "soon")
    assert (status, "must be a time like 20ms" in complaint) == (2, True)


@pytest.mark.parametrize("name", ["config.json", "result.json", "weights.npz", "statistics.npz"])
def test_a_damaged_run_is_named(run, predict, tmp_path, name):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"{}")
    status, _, complaint = predict("test:0", folder=tmp_path / "run")
    assert status == 2
    assert str(tmp_path / "run") in complaint
    assert len(complaint.splitlines()) == 1
    (tmp_path / "run" / name).unlink()
    status, _, complaint = predict("test:0", folder=tmp_path / "run")
    assert (status, f"lacks {name}" in complaint) == (2, True)
