"""Run folders compared."""

from __future__ import annotations

import json

import numpy as np


def weights_of(folder):
    with np.load(folder / "weights.npz") as file:
        return {name: file[name] for name in file.files}


def apart(left, right):
    """The largest difference of two runs' weights, in units of each array's largest weight.

    Biases begin at zero; while they are below a tenth that is their unit.
    """
    first, second = weights_of(left), weights_of(right)
    assert set(first) == set(second)
    return max(
        float(np.abs(first[name] - second[name]).max() / max(np.abs(first[name]).max(), 0.1))
        for name in first
    )


def result_of(folder):
    return json.loads((folder / "result.json").read_text())
