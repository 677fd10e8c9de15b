"""Batches for the tests of augmentation, and what they must become, in plain slices."""

from __future__ import annotations

import numpy as np

from loss_balance.experiments.data import augment

POLICIES = [*augment.AUGMENTATIONS.values(), augment.Augmentation(pad=2, flip=True, blur=0.5)]
SHAPES = [(32, 32, 3), (5, 8, 1)]


def example(policy, shape, dtype, count=24):
    """(images, index, draws, constants) as NumPy arrays."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (50, *shape)).astype(dtype)
    mean = rng.uniform(0, 255, shape).astype(np.float32)
    std = rng.uniform(50, 150, shape[-1]).astype(np.float32)
    index = rng.integers(len(images), size=count).astype(np.int32)
    draws = augment.draws(policy, 7, 1, count)
    return images, index, draws, augment.constants(policy, shape, mean, std)


def assert_equal_in(xp, convert, back, wrappers, policy, shape, dtype):
    """A framework's batch is NumPy's, eager and in each wrapper (jit, compile, ...)."""
    images, index, draws, constants = example(policy, shape, dtype)
    expected = augment.augmented(images, index, draws, constants, np)
    given = (
        convert(images),
        convert(index),
        augment.Draws(*map(convert, draws)),
        augment.Constants(*map(convert, constants)),
    )

    def batch(images, index, draws, constants):
        return augment.augmented(images, index, draws, constants, xp)

    for wrap in (lambda f: f, *wrappers):
        result = back(wrap(batch)(*given))
        assert result.dtype == np.float32
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-6)
    plain = back(augment.standardised(convert(images[:4]), given[3], xp))
    assert plain.dtype == np.float32
    np.testing.assert_allclose(
        plain, augment.standardised(images[:4], constants, np), rtol=1e-5, atol=2e-6
    )
