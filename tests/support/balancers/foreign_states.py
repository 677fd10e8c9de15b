"""States that nobody wrote, drawn by hypothesis: a real one, with some of it changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from loss_balance import (
    AdaLoss,
    DynamicWeightAverage,
    LogLoss,
    PowerMean,
    RelativeAdaLoss,
    Scheme,
    SoftmaxInverse,
    UncertaintyWeighting,
)

FUZZED: list[Scheme] = [
    AdaLoss(3),
    AdaLoss(3, gamma=0.0, warmup=4, clip=10.0),
    LogLoss(3),
    SoftmaxInverse(3),
    UncertaintyWeighting(3),
    DynamicWeightAverage(3, window=2),
    PowerMean(3, power=-1.0, final_weight=2.0),
    RelativeAdaLoss(3),
]
FIELDS = (
    "average",
    "weights",
    "step",
    "skipped",
    "recent",
    "pending",
    "identity",
    "values",
    "reference",
)
numbers = st.one_of(
    st.floats(),
    st.floats(0.0, 2.0),
    st.sampled_from([-1.0, -0.5, 0.0, 1.0, 1e-45, 1e38, 1e39, 2.0**31, 2.0**53]),
    st.integers(-(2**63), 2**63 - 1),
)
dtypes = st.sampled_from([np.float64, np.float32, np.int64, np.uint8, bool, complex, object, str])
shapes = st.sampled_from([(), (1,), (3,), (2, 3), (3, 1), (0,)])


@st.composite
def arrays(draw) -> Any:
    """Of some shape and dtype; now and then no array."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([None, "text", b"bytes", [[1.0], []], {}, 1.0]))
    shape = draw(shapes)
    values = draw(st.lists(numbers, min_size=1, max_size=6))
    with np.errstate(all="ignore"):
        whole = np.resize(np.array(values, object), shape)
        dtype = draw(dtypes)
        if np.dtype(dtype).kind in "iu":
            return np.array([_whole(x) for x in whole.flat], np.int64).reshape(shape).astype(dtype)
        return whole.astype(dtype)


def _whole(x: float) -> int:
    return int(x) if abs(x) < 2.0**62 else 0


@st.composite
def mangled(draw) -> tuple[Scheme, list[tuple[str, str, Any]]]:
    """A scheme and changes: (field, "all", array), (field, "gone", None) or (field, "one", x)."""
    kinds = {"all": arrays(), "gone": st.none(), "one": numbers}
    changes = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from([*kinds, "one"]))
        changes.append((draw(st.sampled_from(FIELDS)), kind, draw(kinds[kind])))
    return draw(st.sampled_from(FUZZED)), changes


def changed(exported: dict[str, Any], changes: list[tuple[str, str, Any]]) -> dict[str, Any]:
    """A copy with these changes."""
    state = dict(exported)
    for name, kind, value in changes:
        if kind == "gone":
            state.pop(name, None)
        elif kind == "all":
            state[name] = value
        elif getattr(state.get(name), "size", 0) and state[name].dtype.kind in "iuf":
            state[name] = one_changed(state[name], value)
    return state


def one_changed(array: np.ndarray, value: float) -> np.ndarray:
    """The first entry is another, in a dtype that holds it; of bytes, one of them."""
    if array.dtype == np.uint8:
        value = abs(_whole(value)) % 256
    wide = array.astype(array.dtype if array.dtype == np.uint8 else np.float64)
    wide[(0,) * wide.ndim] = value
    return wide
