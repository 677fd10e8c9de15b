from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
from support.experiments.augmenting import POLICIES, SHAPES, assert_equal_in


def compiled(batch):
    return tf.function(batch, jit_compile=True)


def in_64_bits(array):
    """As on a GPU, where TensorFlow keeps int32 on the host."""
    return tf.constant(array.astype(np.int64) if array.dtype == np.int32 else array)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_tensorflow_augments_as_numpy(policy, shape, dtype):
    for convert in (tf.constant, in_64_bits):
        arguments = (policy, shape, dtype)
        assert_equal_in(tf, convert, np.asarray, [tf.function, compiled], *arguments)
