"""Folders of images: listed by class, read by workers, the same whoever reads them."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("grain")
from loss_balance.experiments.data import pictures, sources, stream
from loss_balance.experiments.data.dataset import HELD_OUT_SHARE
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.recipes import Recipe, epoch_order

CLASSES = ("n01440764", "n01443537", "n02000000")


def picture(seed, width=90, height=60, mode="RGB"):
    """Smooth, so that JPEG and resizing keep it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height)).convert(mode)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, four training and two test images each, JPEG and PNG, grey and CMYK too."""
    root = tmp_path_factory.mktemp("ilsvrc")
    for label, name in enumerate(CLASSES):
        for split, count in (("train", 4), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                mode = ("RGB", "L", "CMYK", "RGB")[k]
                kind = "png" if k == 3 else "JPEG"
                file = root / split / name / f"{name}_{k}.{kind}"
                picture(100 * label + 10 * k + (split == "val"), mode=mode).save(file)
            (root / split / name / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def own(root, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(root, tmp_path / "own")


def epoch(loaded, seed=0, number=0, workers=0, batch_size=5):
    recipe = Recipe(epochs=1, batch_size=batch_size)
    order = epoch_order(seed, number, len(loaded.y_train), recipe)
    batches = list(stream.training(loaded, order, seed, number, workers))
    return np.stack([x for x, _ in batches]), np.stack([y for _, y in batches]), order


def test_classes_are_numbered_as_their_folders_sort(root):
    loaded = sources.load("imagefolder", root)
    assert loaded.streamed
    assert loaded.num_classes == 3
    assert loaded.input_shape == (224, 224, 3)
    assert len(loaded.y_train) == 12
    assert len(loaded.y_test) == 6
    for x, y in ((loaded.x_train, loaded.y_train), (loaded.x_test, loaded.y_test)):
        for name, label in zip(x, y, strict=True):
            assert os.fsdecode(name).split("/")[1] == CLASSES[label]
            assert (root / os.fsdecode(name)).is_file()


def test_the_folder_may_move_and_the_fingerprint_stays(root, own):
    before = sources.load("imagefolder", root).fingerprint()
    assert sources.load("imagefolder", own).fingerprint() == before
    next((own / "train" / CLASSES[0]).glob("*.JPEG")).unlink()
    assert sources.load("imagefolder", own).fingerprint() != before


def test_each_of_several_processes_gets_its_rows_of_every_batch(root):
    loaded = sources.load("imagefolder", root)
    recipe = Recipe(epochs=1, batch_size=6)
    for part in (slice(0, None, 2), slice(1, None, 3)):
        for mine, whole in zip(
            feed.training(loaded, recipe, 0, 0, part=part),
            feed.training(loaded, recipe, 0, 0),
            strict=True,
        ):
            np.testing.assert_array_equal(mine.images, whole.images[part])
            np.testing.assert_array_equal(mine.labels, whole.labels[part])
            assert len(mine.chosen) == len(mine.labels)
        split = loaded, loaded.x_test, loaded.y_test
        for mine, whole in zip(
            feed.evaluation(*split, part=part), feed.evaluation(*split), strict=True
        ):
            for of_part, of_all in zip(mine, whole, strict=True):
                np.testing.assert_array_equal(of_part, of_all[part])


def test_an_epoch_is_the_same_however_many_workers_read_it(root):
    loaded = sources.load("imagefolder", root)
    x, y, order = epoch(loaded)
    assert x.shape == (2, 5, 224, 224, 3)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(y, loaded.y_train[order])
    by_two, labels, _ = epoch(loaded, workers=2)
    np.testing.assert_array_equal(by_two, x)
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("workers", [0, 2])
def test_many_epochs_are_read_by_the_same_processes(root, workers, monkeypatch):
    monkeypatch.setattr(stream, "WORTH_WORKERS", 1)
    begun, begin = [], stream._batches
    monkeypatch.setattr(stream, "_batches", lambda *a: begun.append(a[1]) or begin(*a))
    loaded, recipe = sources.load("imagefolder", root), Recipe(epochs=3, batch_size=5)
    numbers, part = range(1, 4), slice(1, None, 2)
    read = [list(each) for each in feed.epochs(loaded, recipe, 7, numbers, workers, part)]
    assert begun == [workers]
    for number, batches in zip(numbers, read, strict=True):
        alone = list(feed.training(loaded, recipe, 7, number, part=part))
        for one, other in zip(batches, alone, strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
    split = loaded, loaded.x_test, loaded.y_test
    for again in feed.evaluations(*split, 2, workers):
        for one, other in zip(again, feed.evaluation(*split), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
    assert begun[-3:] == [workers, 0, 0] or workers == 0
    assert not list(feed.epochs(loaded, recipe, 7, range(3, 3), workers))


def test_a_small_set_starts_no_processes(root, monkeypatch):
    asked = []
    begin = stream._batches
    monkeypatch.setattr(stream, "_batches", lambda *a: asked.append(a[1]) or begin(*a))
    loaded = sources.load("imagefolder", root)
    for batches in feed.epochs(loaded, Recipe(epochs=2, batch_size=5), 0, range(2), workers=2):
        assert len(list(batches)) == 2
    monkeypatch.setattr(stream, "WORTH_WORKERS", 20)  # of two epochs of two batches of five
    next(feed.epochs(loaded, Recipe(epochs=2, batch_size=5), 0, range(2), workers=2))
    assert asked == [0, 2]


def test_every_seed_epoch_and_place_has_a_crop_of_its_own(root):
    loaded = sources.load("imagefolder", root)
    order = np.zeros((1, 4), np.int64)  # one image, four times
    seen = {
        image.tobytes()
        for seed in (0, 1)
        for number in (0, 1)
        for x, _ in stream.training(loaded, order, seed, number, 0)
        for image in x
    }
    assert len(seen) == 16


def test_an_epoch_does_not_need_those_before_it(root):
    loaded = sources.load("imagefolder", root)
    epoch(loaded, number=0)
    after, _, _ = epoch(loaded, number=1)
    fresh, _, _ = epoch(sources.load("imagefolder", root), number=1)
    np.testing.assert_array_equal(after, fresh)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_reads_all_images_in_order(root, workers):
    loaded = sources.load("imagefolder", root)
    batches = list(stream.evaluation(loaded, loaded.x_test, loaded.y_test, 4, workers))
    assert [len(y) for _, y in batches] == [4, 2]
    assert np.concatenate([y for _, y in batches]).tolist() == loaded.y_test.tolist()
    images = np.concatenate([x for x, _ in batches])
    for name, image in zip(loaded.x_test, images, strict=True):
        with Image.open(root / os.fsdecode(name)) as whole:  # 90 x 60 becomes 384 x 256
            scaled = whole.convert("RGB").resize((384, 256), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(scaled)[16:240, 80:304])


@pytest.mark.parametrize("size", [(300, 300), (1, 500), (500, 3), (256, 257), (2000, 90)])
def test_any_shape_of_image_gives_a_whole_crop(size):
    image = picture(0, *size)
    assert stream.crop_evaluation(image).size == (224, 224)
    for seed in range(20):
        assert stream.crop_training(image, np.random.default_rng(seed)).size == (224, 224)


def test_crops_cover_8_to_100_percent_in_shapes_from_3_4_to_4_3():
    image = picture(0, 400, 300)
    rng = np.random.default_rng(0)
    boxes = np.array([stream._part(image, rng) for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 400).all()
    assert (boxes[:, 3] <= 300).all()
    area, aspect = width * height / (400 * 300), width / height
    assert 0.079 < area.min() < 0.1
    assert 0.9 < area.max() <= 1
    assert 0.73 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.36
    assert boxes[:, 0].min() == boxes[:, 1].min() == 0


def test_an_image_no_part_fits_is_taken_whole():
    assert stream._part(picture(0, 1000, 2), np.random.default_rng(0)) == (0, 0, 1000, 2)


def test_training_images_are_mirrored_half_of_the_time():
    left_dark = np.zeros((224, 224, 3), np.uint8)
    left_dark[:, 112:] = 255
    image = Image.fromarray(left_dark)
    sides = []
    for seed in range(400):
        crop = np.asarray(stream.crop_training(image, np.random.default_rng(seed)), float)
        difference = crop[:, :20].mean() - crop[:, -20:].mean()
        if abs(difference) > 50:  # the crop has some of both sides
            sides.append(difference > 0)
    assert len(sides) > 200
    assert np.mean(sides) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(len(sides)))


def changed_stripes(change):
    """Mean and height of stripes of 80 and 120 after each of 300 draws."""
    stripes = np.full((8, 8, 3), 80, np.uint8)
    stripes[::2] = 120
    image = Image.fromarray(stripes)
    results = [np.asarray(change(image, np.random.default_rng(seed)), float) for seed in range(300)]
    heights = [result[0, 0, 0] - result[1, 0, 0] for result in results]
    return np.array([result.mean() for result in results]), np.array(heights)


def test_brightness_is_shifted_by_up_to_30():
    means, heights = changed_stripes(stream._brighter)
    assert set(heights) == {40}
    assert 70 <= means.min() < 75
    assert 125 < means.max() <= 130


def test_contrast_is_stretched_by_up_to_a_fifth_about_the_mean():
    means, heights = changed_stripes(stream._contrasted)
    np.testing.assert_allclose(means, 100)
    assert 32 <= heights.min() < 34
    assert 46 < heights.max() <= 48


def test_saturation_moves_colours_from_and_to_grey():
    image = Image.new("RGB", (4, 4), (150, 100, 100))
    gaps = []
    for seed in range(300):
        pixel = np.asarray(stream._saturated(image, np.random.default_rng(seed)), int)[0, 0]
        gaps.append(pixel[0] - pixel[1])
    assert 29 <= min(gaps) < 34
    assert 66 < max(gaps) <= 71


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named(own, workers):
    loaded = sources.load("imagefolder", own)
    file = own / os.fsdecode(loaded.x_test[3])
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{file.name} must be a whole image, got: ") as error:
        list(stream.evaluation(loaded, loaded.x_test, loaded.y_test, 2, workers))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_a_foreign_file_under_an_images_name_is_named(own, content):
    loaded = sources.load("imagefolder", own)
    (own / os.fsdecode(loaded.x_train[0])).write_bytes(content)
    with pytest.raises(UserError, match="must be a whole image, got: "):
        epoch(loaded)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_and_not_cut(tmp_path, kind):
    values = np.linspace(0, 65535, 48 * 48).reshape(48, 48).round().astype(np.uint16)
    file = tmp_path / f"deep.{kind}"
    Image.fromarray(values).save(file)
    read = np.asarray(pictures.read(file, "L"), float)
    np.testing.assert_allclose(read, values / 257.0, atol=0.5)
    assert np.asarray(pictures.read(file, "RGB")).shape == (48, 48, 3)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(UserError, match="floating-point pixels"):
        pictures.read(tmp_path / "floats.tiff", "L")


def test_what_is_hidden_is_skipped_and_what_is_no_image_is_counted(own):
    (own / "train" / ".thumbnails").mkdir()
    (own / "val" / ".DS_Store").touch()
    (own / "train" / CLASSES[0] / "._x.png").write_bytes(b"a Mac's shadow of a file")
    (own / "train" / CLASSES[0] / "movie.tif").touch()
    loaded = sources.load("imagefolder", own)
    assert loaded.class_names == CLASSES
    assert len(loaded.x_train) == 12
    assert loaded.notes == (
        "train has files that are no images by their names, left out: 3 .txt, 1 .tif",
        "val has files that are no images by their names, left out: 3 .txt",
    )


def test_broken_images_are_found_beforehand_and_may_be_left_out(own):
    loaded = sources.load("imagefolder", own)
    files = [os.fsdecode(x[k]) for x, k in ((loaded.x_train, 2), (loaded.x_test, 1))]
    for name in files:
        (own / name).write_bytes((own / name).read_bytes()[:150])
    found = dict(pictures.broken(own, np.concatenate([loaded.x_train, loaded.x_test])))
    assert set(found) == set(files)
    assert all(found.values())
    source = sources.Source("imagefolder", own, skip=tuple(files))
    left = source.load()
    assert (len(left.y_train), len(left.y_test)) == (11, 5)
    assert left.skipped == tuple(files)
    assert left.fingerprint() != loaded.fingerprint()
    assert sources.Source.from_config(source.config()) == source
    assert "skip" not in sources.Source("imagefolder", own).config()
    everything = tuple(map(os.fsdecode, loaded.x_test))
    with pytest.raises(UserError, match="must leave images of each class"):
        sources.Source("imagefolder", own, skip=everything).load()


def test_an_image_that_went_away_is_named(own):
    loaded = sources.load("imagefolder", own)
    (own / os.fsdecode(loaded.x_train[0])).unlink()
    with pytest.raises(UserError, match=r"whole image, got: .*No such file"):
        epoch(loaded)


def spoil(own, how):
    if how == "no val":
        shutil.rmtree(own / "val")
    elif how == "flat val":
        shutil.rmtree(own / "val")
        (own / "val").mkdir()
        picture(0).save(own / "val" / "ILSVRC2012_val_00000001.JPEG")
    elif how == "empty class":
        for file in (own / "train" / CLASSES[1]).iterdir():
            file.unlink()
    else:
        (own / "val" / "n03000000").mkdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no val", "must hold the folders train and val, .* missing: val"),
        ("flat val", "val must hold a folder of images for each class, got none"),
        ("empty class", r"n01443537 must hold images \(.jpeg, .*\), got none"),
        ("another class", "val must hold classes that train has, got n03000000"),
    ],
)
def test_another_layout_is_named_with_the_rule(own, how, message):
    spoil(own, how)
    with pytest.raises(UserError, match=message):
        sources.load("imagefolder", own)


def test_the_order_is_drawn_once_so_that_all_classes_can_be_held_out(tmp_path):
    for split, count in (("train", 1000), ("val", 1)):
        for c in range(8):
            (tmp_path / split / f"c{c}").mkdir(parents=True)
            for k in range(count):
                (tmp_path / split / f"c{c}" / f"{k}.jpg").touch()
    loaded = sources.load("imagefolder", tmp_path, validation=True)
    assert len(loaded.y_test) == 8000 // HELD_OUT_SHARE
    assert len(loaded.y_train) == 7200
    assert np.bincount(loaded.y_test, minlength=8).min() > 70
    assert not set(loaded.x_train) & set(loaded.x_test)
    again = sources.load("imagefolder", tmp_path, validation=True)
    np.testing.assert_array_equal(loaded.x_test, again.x_test)


def test_its_augmentation_is_its_own(root):
    with pytest.raises(UserError, match="--augment is for images in memory, imagefolder has a way"):
        sources.load("imagefolder", root, augment="crop-flip")


def test_a_set_in_memory_is_not_streamed(tmp_path):
    x, y = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    loaded = sources.load("npz", tmp_path / "set.npz")
    assert not loaded.streamed
    with pytest.raises(ValueError, match="a streamed set was expected, set is in memory"):
        stream.training(loaded, np.zeros((1, 2), np.int64), 0, 0, 0)
