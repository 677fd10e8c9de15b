"""`keras.distribution` on Keras' JAX backend, in a process of its own."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from support.distributed.processes import run_together

pytest.importorskip("jax")
if find_spec("keras") is None:
    pytest.skip("Keras is not installed here", allow_module_level=True)
from pathlib import Path

from support import balancers

PROGRAM = Path(balancers.__path__[0]) / "keras_jax_devices.py"  # Keras is not for this process


def test_fit_over_four_devices_is_fit_on_one(tmp_path):
    path = tmp_path / "found.npz"
    own = {"KERAS_BACKEND": "jax", "JAX_NUM_CPU_DEVICES": "4"}
    (ended,) = run_together(str(PROGRAM), [own], str(path), timeout=120)
    assert ended.code == 0, ended.said
    found = np.load(path)
    assert (found["one/devices"], found["four/devices"]) == (1, 4)
    names = [name for name in found.files if name.startswith("one/") and name != "one/devices"]
    assert len(names) > 10
    for name in names:
        np.testing.assert_allclose(found[name.replace("one", "four")], found[name], rtol=1e-5)
    assert found["one/step"] == 4
