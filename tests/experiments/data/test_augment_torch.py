from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from support.experiments.augmenting import POLICIES, SHAPES, assert_equal_in


def compiled(batch):
    return torch.compile(batch, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_torch_augments_as_numpy(policy, shape, dtype):
    torch.compiler.reset()
    arguments = (policy, shape, dtype)
    assert_equal_in(torch, torch.from_numpy, torch.Tensor.numpy, [compiled], *arguments)
