"""Three of the paper's networks as one would write them by hand in Flax NNX, to compare cost with.

The networks use nothing of this package. `pairs` puts each beside ours, from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

BATCH = 16
CLASSES = 10

norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)


def conv(cin: int, cout: int, size: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    """Padded symmetrically, no bias."""
    return nnx.Conv(cin, cout, (size, size), stride, padding=size // 2, use_bias=False, rngs=rngs)


class PreActBlock(nnx.Module):
    """BN-ReLU-conv, twice, plus the input."""

    def __init__(self, cin: int, cout: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.bn1 = norm(cin, rngs=rngs)
        self.conv1 = conv(cin, cout, 3, stride, rngs=rngs)
        self.bn2 = norm(cout, rngs=rngs)
        self.conv2 = conv(cout, cout, 3, rngs=rngs)
        self.stride, self.pad = stride, (cout - cin) // 2

    def __call__(self, x: Array) -> Array:
        out = self.conv1(nnx.relu(self.bn1(x)))
        out = self.conv2(nnx.relu(self.bn2(out)))
        if self.stride == 2:
            x = nnx.avg_pool(x, (2, 2), (2, 2))
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.pad, self.pad)))
        return out + x


class Classifier(nnx.Module):
    """An exit of ResANN or DenseANN."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.bn = norm(channels, rngs=rngs)
        self.fc = nnx.Linear(channels, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.fc(nnx.relu(self.bn(x)).mean((1, 2)))


class ResANN(nnx.Module):
    """An exit after every block."""

    def __init__(self, n: int = 3, c: int = 16, *, rngs: nnx.Rngs) -> None:
        self.conv = conv(3, c, 3, rngs=rngs)
        widths = [c] * n + [2 * c] * n + [4 * c] * n
        self.blocks = nnx.List(
            PreActBlock(cin, cout, 1 if cin == cout else 2, rngs=rngs)
            for cin, cout in zip([c, *widths], widths, strict=False)
        )
        self.classifiers = nnx.List(Classifier(width, rngs=rngs) for width in widths)

    def __call__(self, x: Array) -> list[Array]:
        x = self.conv(x)
        logits = []
        for block, classifier in zip(self.blocks, self.classifiers, strict=True):
            x = block(x)
            logits.append(classifier(x))
        return logits


class DenseLayer(nnx.Module):
    """A bottlenecked layer of DenseNet."""

    def __init__(self, cin: int, growth: int, *, rngs: nnx.Rngs) -> None:
        self.bn1 = norm(cin, rngs=rngs)
        self.conv1 = conv(cin, 4 * growth, 1, rngs=rngs)
        self.bn2 = norm(4 * growth, rngs=rngs)
        self.conv2 = conv(4 * growth, growth, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        out = self.conv1(nnx.relu(self.bn1(x)))
        out = self.conv2(nnx.relu(self.bn2(out)))
        return jnp.concatenate([x, out], axis=-1)


class Transition(nnx.Module):
    """The transition between dense blocks."""

    def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs) -> None:
        self.bn = norm(cin, rngs=rngs)
        self.conv = conv(cin, cout, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return nnx.avg_pool(self.conv(nnx.relu(self.bn(x))), (2, 2), (2, 2))


class DenseANN(nnx.Module):
    """An exit after every dense layer."""

    def __init__(self, n: int = 6, growth: int = 12, *, rngs: nnx.Rngs) -> None:
        channels = 2 * growth
        self.conv = conv(3, channels, 3, rngs=rngs)
        layers: list[nnx.Module] = []
        classifiers = []
        for block in range(3):
            if block > 0:
                layers.append(Transition(channels, channels // 2, rngs=rngs))
                channels //= 2
            for _ in range(n):
                layers.append(DenseLayer(channels, growth, rngs=rngs))
                channels += growth
                classifiers.append(Classifier(channels, rngs=rngs))
        self.layers = nnx.List(layers)
        self.classifiers = nnx.List(classifiers)

    def __call__(self, x: Array) -> list[Array]:
        x = self.conv(x)
        logits: list[Array] = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, DenseLayer):
                logits.append(self.classifiers[len(logits)](x))
        return logits


def conv_bn_relu(
    cin: int, cout: int, size: int, stride: int = 1, *, rngs: nnx.Rngs
) -> nnx.Sequential:
    """Convolution, then batch norm, then ReLU."""
    return nnx.Sequential(conv(cin, cout, size, stride, rngs=rngs), norm(cout, rngs=rngs), nnx.relu)


class MSDFirst(nnx.Module):
    """The first map of every scale."""

    def __init__(self, channels: list[int], *, rngs: nnx.Rngs) -> None:
        self.scales = nnx.List(
            conv_bn_relu(cin, cout, 3, stride, rngs=rngs)
            for cin, cout, stride in zip([3, *channels], channels, [1, 2, 2], strict=False)
        )

    def __call__(self, x: Array) -> list[Array]:
        maps: list[Array] = []
        for scale in self.scales:
            maps.append(scale(maps[-1] if maps else x))
        return maps


class MSDLayer(nnx.Module):
    """New channels for every scale kept."""

    def __init__(
        self, channels: list[int], factors: list[int], kept: int, growth: int, *, rngs: nnx.Rngs
    ) -> None:
        def path(cin: int, cout: int, factor: int, stride: int) -> nnx.Sequential:
            inner = min(cin, factor * cout)
            return nnx.Sequential(
                conv_bn_relu(cin, inner, 1, rngs=rngs),
                conv_bn_relu(inner, cout, 3, stride, rngs=rngs),
            )

        self.first = len(channels) - kept
        paths = []
        for target in range(self.first, len(channels)):
            new = growth * factors[target]
            own = new // 2 if target > 0 else new
            paths.append(path(channels[target], own, factors[target], 1))
            if target > 0:
                source = target - 1
                paths.append(path(channels[source], new - own, factors[source], 2))
        self.paths = nnx.List(paths)

    def __call__(self, maps: list[Array]) -> list[Array]:
        paths = iter(self.paths)
        outs = []
        for target in range(self.first, len(maps)):
            parts = [maps[target], next(paths)(maps[target])]
            if target > 0:
                parts.append(next(paths)(maps[target - 1]))
            outs.append(jnp.concatenate(parts, axis=-1))
        return outs


class MSDTransition(nnx.Module):
    """Half the channels, on every scale."""

    def __init__(self, channels: list[int], *, rngs: nnx.Rngs) -> None:
        self.scales = nnx.List(conv_bn_relu(c, c // 2, 1, rngs=rngs) for c in channels)

    def __call__(self, maps: list[Array]) -> list[Array]:
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]


class MSDClassifier(nnx.Module):
    """Two strided convolutions, then logits."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.features = nnx.Sequential(
            conv_bn_relu(channels, 128, 3, 2, rngs=rngs), conv_bn_relu(128, 128, 3, 2, rngs=rngs)
        )
        self.fc = nnx.Linear(128, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.fc(self.features(x).mean((1, 2)))


class MSDNet(nnx.Module):
    """MSDNet for CIFAR in the layout of AdaLoss' authors, 18 layers, an exit after every second."""

    def __init__(self, depth: int = 18, growth: int = 6, *, rngs: nnx.Rngs) -> None:
        channels = [2 * growth, 4 * growth, 8 * growth]
        factors = [1, 2, 4]
        layers: list[nnx.Module] = [MSDFirst(channels, rngs=rngs)]
        classifiers, self.answers = [], []
        for block in range(3):
            if block > 0:
                layers.append(MSDTransition(channels, rngs=rngs))
                channels = [c // 2 for c in channels]
            for _ in range(depth // 3 - 1):
                kept = 3 - block
                layers.append(MSDLayer(channels, factors, kept, growth, rngs=rngs))
                factors = factors[-kept:]
                channels = [c + growth * f for c, f in zip(channels[-kept:], factors, strict=True)]
                if len(layers) % 2 == 0 and len(layers) > 4:
                    self.answers.append(len(layers) - 1)
                    classifiers.append(MSDClassifier(channels[-1], rngs=rngs))
        self.layers = nnx.List(layers)
        self.classifiers = nnx.List(classifiers)

    def __call__(self, x: Array) -> list[Array]:
        logits: list[Array] = []
        maps: Any = x
        for i, layer in enumerate(self.layers):
            maps = layer(maps)
            if i in self.answers:
                logits.append(self.classifiers[len(logits)](maps[-1]))
        return logits


def train_step(net: Any) -> Callable[[], Array]:
    """Forward, sum of cross-entropies, backward and update on one fixed batch; returns the loss."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((BATCH, 32, 32, 3), np.float32))
    labels = jnp.asarray(rng.integers(CLASSES, size=BATCH))
    optimizer = nnx.Optimizer(net, optax.sgd(1e-3, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(net: Any, optimizer: nnx.Optimizer[Any], images: Array, labels: Array) -> Array:
        def total(net: Any) -> Array:
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            return sum(cross_entropy(logits, labels).mean() for logits in net(images))

        loss, gradients = nnx.value_and_grad(total)(net)
        optimizer.update(net, gradients)
        return loss

    return lambda: jax.block_until_ready(step(net, optimizer, images, labels))


def parameters(node: Any) -> Iterator[nnx.Param[Any]]:
    """A module's parameters, in the order in which they were assigned."""
    for value in vars(node).values():
        if isinstance(value, nnx.Param):
            yield value
        elif isinstance(value, nnx.Module):
            yield from parameters(value)


def pairs() -> dict[str, tuple[Callable[[], Array], Callable[[], Array]]]:
    """Training steps (ours, plain) per network, compiled as is the habit in JAX.

    Raises:
        ValueError: a pair is not the same network.
    """
    from loss_balance.reference_models import families
    from loss_balance.reference_models.jax import AnytimeNet

    specs = {
        "ResANN(3, 16)": (families.resann(3, 16), ResANN(rngs=nnx.Rngs(0))),
        "DenseANN(6, 12)": (families.denseann(6, 12), DenseANN(rngs=nnx.Rngs(0))),
        "MSDNet18": (families.msdnet(18), MSDNet(rngs=nnx.Rngs(0))),
    }
    steps = {}
    for name, (spec, plain) in specs.items():
        ours = AnytimeNet(spec)
        weights = ours.dump_weights()
        # The plain networks have their exits behind all units.
        in_order = sorted(spec.parameters(), key=lambda name: name.startswith("exit"))
        for parameter, own in zip(parameters(plain), in_order, strict=True):
            parameter.set_value(jnp.asarray(weights[own]))
        steps[name] = (train_step(ours), train_step(plain))
        first = [float(step()) for step in steps[name]]
        if not np.allclose(*first):
            raise ValueError(f"{name}: both must have the same loss, got {first}")
    return steps
