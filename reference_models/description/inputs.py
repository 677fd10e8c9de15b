"""What a network may be given, the same in every framework: images, and samples to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_balance.reference_models.description.layers import Shape


def check_images(shape: Sequence[Any], expected: Shape, *, channels_first: bool = False) -> None:
    """ValueError unless images of `shape`, (B, H, W, C) or (B, C, H, W), are of the spec's."""
    height, width, channels = expected
    wanted = (channels, height, width) if channels_first else expected
    if tuple(shape[1:]) != wanted:
        of = ", ".join(map(str, wanted))
        raise ValueError(f"expected images of shape (B, {of}), got {tuple(shape)}")


def positions(sent: Any, count: int | None) -> NDArray[np.int64]:
    """What was sent to `anytime`: the samples to go on with, in any order, one also twice.

    Args:
        sent: shape (n,), whole numbers of any type; an array of a framework that NumPy can read.
        count: of samples in the current batch; None where it is not known yet.

    Raises:
        ValueError: they are no positions in the batch; a negative one does not count from its end.
    """
    found = np.asarray(sent)
    if found.shape == (0,):
        return found.astype(np.int64)
    whole = found.ndim == 1 and np.issubdtype(found.dtype, np.integer)
    if not whole or (count is not None and ((found < 0) | (found >= count)).any()):
        batch = "batch" if count is None else f"batch of {count}"
        raise ValueError(
            "send must be given a vector of whole numbers, positions in the current "
            f"{batch}, got {sent!r}"
        )
    return found.astype(np.int64)
