"""The heads of exits on a model of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from loss_balance.reference_models.description.exits import check_features, check_head
from loss_balance.reference_models.description.layers import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
)


def head_for(
    name: str, features: Any, head: Any, classes: int, model: keras.Model
) -> keras.layers.Layer:
    """The head of an exit, with all its variables.

    Args:
        name: of the exit.
        features: the KerasTensor that it reads.
        head: a layer, a function of the features' shape without the batch, or None.
        classes: logits it must give.
        model: whose dtype policy the default head has.

    Raises:
        ValueError: it is none of these, or gives no logits of so many classes.
    """
    shape = tuple(features.shape[1:])
    if head is None:
        check_features(name, features)
        head = default_head(name, shape, classes, model.dtype_policy)
    elif not isinstance(head, keras.layers.Layer):
        head = _made(name, head, shape)
    # A tensor of its own: the model's graph is to end where it did.
    logits = head(keras.KerasTensor(features.shape, features.dtype))
    check_head(name, logits, classes)
    made: keras.layers.Layer = head
    return made


def _made(name: str, make: Callable[..., Any], shape: tuple[int | None, ...]) -> keras.layers.Layer:
    head = make(shape) if callable(make) else make
    if not isinstance(head, keras.layers.Layer):
        raise ValueError(
            "heads must be layers, functions of a shape that return one, or None, got "
            f"{head!r} for {name!r}"
        )
    return head


def default_head(
    name: str, shape: tuple[int | None, ...], classes: int, policy: Any
) -> keras.Sequential:
    """Batch norm, ReLU, global average, linear for maps; layer norm, mean, linear for tokens.

    Logits are float32 under mixed precision.
    """
    layers = keras.layers
    if len(shape) == 3:
        first = [
            layers.BatchNormalization(
                momentum=BATCH_NORM_DECAY, epsilon=BATCH_NORM_EPSILON, name="norm", dtype=policy
            ),
            layers.ReLU(name="relu", dtype=policy),
            layers.GlobalAveragePooling2D("channels_last", name="average", dtype=policy),
        ]
    else:
        first = [
            layers.LayerNormalization(epsilon=BATCH_NORM_EPSILON, name="norm", dtype=policy),
            layers.GlobalAveragePooling1D("channels_last", name="average", dtype=policy),
        ]
    linear = layers.Dense(classes, name="linear", dtype=policy.variable_dtype)
    return keras.Sequential([*first, linear], name=f"exit_{name.replace('/', '_')}")
