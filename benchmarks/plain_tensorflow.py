"""The reference networks as one writes them by hand in Keras, and a training step for any of them.

`pairs()` sets them beside loss-balance's own: `benchmarks/models.py` times both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

Step = Callable[[], Any]
SHAPE, CLASSES, BATCH = (32, 32, 3), 10, 16


def conv(x: Any, filters: int, size: int, stride: int = 1) -> Any:
    """Padded symmetrically, no bias."""
    padding = "same"
    if stride > 1:
        x, padding = layers.ZeroPadding2D(size // 2)(x), "valid"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)


def norm_relu(x: Any) -> Any:
    """Batch norm, then ReLU."""
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))


def conv_norm_relu(x: Any, filters: int, size: int, stride: int = 1) -> Any:
    """Convolution, then batch norm, then ReLU."""
    return norm_relu(conv(x, filters, size, stride))


def linear(x: Any) -> Any:
    """Global average, then logits."""
    return layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))


def resann(n: int = 3, width: int = 16) -> keras.Model:
    """ResANN(n, width): an exit after every unit."""
    image = keras.Input(SHAPE)
    x, exits = conv(image, width, 3), []
    for stage in range(3):
        for unit in range(n):
            first = stage > 0 and unit == 0
            filters = width * 2**stage
            y = conv(norm_relu(x), filters, 3, stride=2 if first else 1)
            y = conv(norm_relu(y), filters, 3)
            if first:
                border = filters // 4
                x = keras.ops.pad(
                    layers.AveragePooling2D(2)(x), ((0, 0), (0, 0), (0, 0), (border, border))
                )
            x = layers.Add()([x, y])
            exits.append(linear(norm_relu(x)))
    return keras.Model(image, exits)


def denseann(n: int = 6, growth: int = 12) -> keras.Model:
    """DenseANN(n, growth) with bottlenecks, halved between blocks; an exit after every layer."""
    image = keras.Input(SHAPE)
    x, exits = conv(image, 2 * growth, 3), []
    for block in range(3):
        if block > 0:
            x = layers.AveragePooling2D(2)(conv(norm_relu(x), x.shape[-1] // 2, 1))
        for _ in range(n):
            y = conv(norm_relu(x), 4 * growth, 1)
            y = conv(norm_relu(y), growth, 3)
            x = layers.Concatenate()([x, y])
            exits.append(linear(norm_relu(x)))
    return keras.Model(image, exits)


def msdnet(depth: int = 18, growth: int = 6) -> keras.Model:
    """MSDNet of three scales and three equal blocks; an exit after every second unit, from 6 on."""
    image = keras.Input(SHAPE)
    scales = [growth * factor for factor in (1, 2, 4)]
    maps = [conv_norm_relu(image, 2 * scales[0], 3)]
    for scale in scales[1:]:
        maps.append(conv_norm_relu(maps[-1], 2 * scale, 3, stride=2))
    exits = []
    for unit in range(1, depth):  # the stem is unit 0
        block, place = divmod(unit, depth // 3)
        if place == 0:
            maps = [conv_norm_relu(x, x.shape[-1] // 2, 1) for x in maps]
        else:
            maps = multi_scale_layer(maps, scales[block:])
        if unit >= 5 and unit % 2:
            exits.append(multi_scale_head(maps[-1]))
    return keras.Model(image, exits)


def multi_scale_layer(maps: list[Any], growths: list[int]) -> list[Any]:
    """Each map kept, followed by features from its own scale and from the next finer one."""
    factors = [1, 2, 4][3 - len(maps) :]  # bottlenecks' widths over what they feed
    dropped = len(maps) - len(growths)
    made = []
    for source, new in enumerate(growths, start=dropped):
        found, own = [maps[source]], new // 2 if source else new
        found.append(multi_scale_edge(maps[source], factors[source], own, stride=1))
        if source:
            found.append(multi_scale_edge(maps[source - 1], factors[source - 1], new - own, 2))
        made.append(layers.Concatenate()(found))
    return made


def multi_scale_edge(x: Any, factor: int, filters: int, stride: int) -> Any:
    """A 1x1 bottleneck, then 3x3."""
    inner = min(x.shape[-1], factor * filters)
    return conv_norm_relu(conv_norm_relu(x, inner, 1), filters, 3, stride)


def multi_scale_head(x: Any) -> Any:
    """Two strided convolutions, then logits."""
    return linear(conv_norm_relu(conv_norm_relu(x, 128, 3, stride=2), 128, 3, stride=2))


def train_step(model: keras.Model, images: Any, labels: Any) -> Step:
    """Forward, sum of the exits' cross-entropies, backward and SGD: one compiled step a call."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = tf.add_n([loss(labels, logits) for logits in model(images, training=True)])
        gradients = tape.gradient(total, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return total

    return lambda: step().numpy()


def pairs() -> dict[str, tuple[Step, Step]]:
    """Name to one training step of (loss-balance's network, the one above) on the same batch."""
    from loss_balance.reference_models import families
    from loss_balance.reference_models.tensorflow import AnytimeNet

    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((BATCH, *SHAPE), np.float32))
    labels = tf.constant(rng.integers(CLASSES, size=BATCH))
    found = {}
    for name, plain in (
        ("resann-3-16", resann()),
        ("denseann-6-12", denseann()),
        ("msdnet-18", msdnet()),
    ):
        ours = AnytimeNet(families.get(name, num_classes=CLASSES))
        if ours.count_params() != plain.count_params():
            raise ValueError(f"the two {name} must have equally many parameters")
        found[name] = (train_step(ours, images, labels), train_step(plain, images, labels))
    return found
