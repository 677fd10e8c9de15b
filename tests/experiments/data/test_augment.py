"""Augmentation in NumPy against plain slices and SciPy, and what its random numbers depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.experiments.augmenting import POLICIES, SHAPES, example

from loss_balance.experiments.data import augment
from loss_balance.experiments.data.augment import AUGMENTATIONS, Augmentation
from loss_balance.experiments.training.recipes import Recipe, epoch_order

COUNTS = 20_000


def cropped(image, pad, top, left, flip):
    """The image framed by zeros, cut out again and flipped."""
    framed = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    cut = framed[top : top + image.shape[0], left : left + image.shape[1]].astype(float)
    return cut[:, ::-1] if flip else cut


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_batch_is_cropped_flipped_blurred_and_standardised(policy, shape, dtype):
    ndimage = pytest.importorskip("scipy.ndimage")
    images, index, draws, constants = example(policy, shape, dtype)
    batch = augment.augmented(images, index, draws, constants, np)
    assert batch.dtype == np.float32
    for i, chosen in enumerate(index):
        top, left, flip, taps = (field[i] for field in draws)
        expected = cropped(images[chosen], policy.pad, top, left, flip)
        if policy.blur:
            middle = len(taps) // 2
            ratio = max(float(taps[middle + 1] / taps[middle]), 1e-30)  # exp(-1 / (2 sigma^2))
            sigma = np.sqrt(-0.5 / np.log(ratio))
            options = {"sigma": sigma, "mode": "nearest", "radius": middle, "axes": (0, 1)}
            expected = ndimage.gaussian_filter(expected, **options)
        expected = (expected - constants.mean) / constants.std
        np.testing.assert_allclose(batch[i], expected, rtol=1e-4, atol=1e-4)


def test_nothing_random_gives_the_standardised_images():
    images, index, draws, constants = example(AUGMENTATIONS["none"], (32, 32, 3), np.uint8)
    batch = augment.augmented(images, index, draws, constants, np)
    np.testing.assert_array_equal(batch, augment.standardised(images[index], constants, np))


@given(st.integers(0, 2**32), st.integers(0, 1000), st.integers(1, 50), st.sampled_from(POLICIES))
def test_draws_depend_on_seed_epoch_and_place_alone(seed, epoch, count, policy):
    few, many = (augment.draws(policy, seed, epoch, n) for n in (count, count + 50))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:count])


def test_every_seed_and_epoch_has_draws_of_its_own():
    policy = AUGMENTATIONS["crop-blur"]
    seen = [augment.draws(policy, seed, epoch, 64) for seed in range(3) for epoch in range(3)]
    for field in ("top", "left", "taps"):
        assert len({getattr(draws, field).tobytes() for draws in seen}) == len(seen)
    for draws in seen:
        assert draws.top.tolist() != draws.left.tolist()


def test_draws_do_not_repeat_the_order_of_the_images():
    order = epoch_order(0, 0, COUNTS, Recipe(epochs=1, batch_size=1)).ravel()
    draws = augment.draws(AUGMENTATIONS["crop-flip"], 0, 0, COUNTS)
    for field in draws[:3]:
        assert abs(np.corrcoef(order, field)[0, 1]) < 5 / np.sqrt(COUNTS)


def test_all_places_are_drawn_alike_the_last_one_too():
    draws = augment.draws(AUGMENTATIONS["crop-flip"], 0, 0, COUNTS)
    for field in (draws.top, draws.left):
        shares = np.bincount(field, minlength=9) / COUNTS
        assert len(shares) == 9
        np.testing.assert_allclose(shares, 1 / 9, atol=5 * np.sqrt(1 / 9 / COUNTS))


def test_half_of_the_images_are_flipped_where_flips_are_asked_for():
    share = augment.draws(AUGMENTATIONS["crop-flip"], 0, 0, COUNTS).flip.mean()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(COUNTS))
    assert not augment.draws(AUGMENTATIONS["crop-blur"], 0, 0, COUNTS).flip.any()


def test_a_blur_keeps_the_brightness_and_varies():
    taps = augment.draws(AUGMENTATIONS["crop-blur"], 0, 0, COUNTS).taps
    np.testing.assert_allclose(taps.sum(axis=1), 1, atol=1e-6)
    assert taps[:, 3].max() > 0.999  # hardly blurred
    assert taps[:, 3].min() < 0.41  # a deviation of one pixel


def test_svhn_is_not_flipped_for_mirrored_digits_are_none():
    assert not AUGMENTATIONS["crop-blur"].flip
    assert AUGMENTATIONS["crop-blur"].blur


@pytest.mark.parametrize("wrong", [{"pad": -1}, {"pad": 1.5}, {"blur": -1.0}, {"blur": 0.05}])
def test_a_wrong_augmentation_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a"):
        Augmentation(**wrong)
