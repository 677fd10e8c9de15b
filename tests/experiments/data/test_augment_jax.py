from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
from jax import numpy as jnp
from support.experiments.augmenting import POLICIES, SHAPES, assert_equal_in


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_jax_augments_as_numpy(policy, shape, dtype):
    assert_equal_in(jnp, jnp.asarray, np.asarray, [jax.jit], policy, shape, dtype)
