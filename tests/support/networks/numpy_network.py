"""The networks in float64 NumPy, written from the paper: shares no code with the package.

Only fields of the spec are read (`units`, `exits`, `in_channels`, ...). Images and maps are
(B, H, W, C); features are a list of maps, finest first.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-5


class Oracle:
    """One forward pass; `statistics` has each batch-norm's batch mean and biased variance."""

    def __init__(self, spec, weights, training=False) -> None:
        self.spec, self.training = spec, training
        self.weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
        self.statistics: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}  # how many values each mean is over

    def logits(self, images) -> list[np.ndarray]:
        features = self.part("stem", self.spec.stem, [np.asarray(images, np.float64)])
        heads = dict(zip(self.spec.exits, self.spec.heads, strict=True))
        answers = []
        for i, unit in enumerate(self.spec.units):
            features = self.part(f"unit{i}", unit, features)
            if i in heads:
                answers.append(self.head(f"exit{i}", heads[i], features[-1]))
        return answers

    def part(self, name, part, features):
        kind = type(part).__name__
        if kind.startswith("MultiScale"):
            return {
                "MultiScaleStem": self.multi_scale_stem,
                "MultiScaleUnit": self.multi_scale_unit,
                "MultiScaleTransition": self.multi_scale_transition,
            }[kind](name, part, features)
        (x,) = features
        run = {
            "ConvStem": lambda: self.conv(f"{name}.conv", x),
            "ImageStem": lambda: max_pool(self.conv_norm_relu(name, x, 2)),
            "ResidualUnit": lambda: self.residual_unit(name, x, part),
            "BottleneckUnit": lambda: self.bottleneck_unit(name, x, part),
            "DenseUnit": lambda: self.dense_unit(name, x, part),
            "DenseTransition": lambda: average_pool(self.norm_relu_conv(name, x, ("norm", "conv"))),
        }
        return [run[kind]()]

    def residual_unit(self, name, x, unit):
        y = self.norm_relu_conv(name, x, ("norm1", "conv1"), unit.stride)
        y = self.norm_relu_conv(name, y, ("norm2", "conv2"))
        if unit.stride == 2:
            x = average_pool(x)
        zeros = np.zeros((*x.shape[:3], (unit.out_channels - unit.in_channels) // 2))
        return y + np.concatenate((zeros, x, zeros), axis=3)

    def bottleneck_unit(self, name, x, unit):
        y = self.norm_relu_conv(name, x, ("norm1", "conv1"))
        y = self.norm_relu_conv(name, y, ("norm2", "conv2"), unit.stride)
        y = self.norm_relu_conv(name, y, ("norm3", "conv3"))
        if unit.stride == 2 or unit.in_channels != unit.out_channels:
            x = self.conv(f"{name}.shortcut", x, unit.stride)
        return y + x

    def dense_unit(self, name, x, unit):
        y = self.norm_relu_conv(name, x, ("norm1", "conv1"))
        if unit.inner_channels:
            y = self.norm_relu_conv(name, y, ("norm2", "conv2"))
        return np.concatenate((x, y), axis=3)

    def multi_scale_stem(self, name, stem, features):
        (x,) = features
        maps = [self.conv_norm_relu(f"{name}.scale0", x, 2 if stem.downsample else 1)]
        if stem.downsample:
            maps = [max_pool(maps[0])]
        for scale in range(1, len(stem.out_channels)):
            maps.append(self.conv_norm_relu(f"{name}.scale{scale}", maps[-1], 2))
        return maps

    def multi_scale_unit(self, name, unit, features):
        dropped = len(unit.in_channels) - len(unit.growth)
        results = []
        for target in range(len(unit.growth)):
            source = target + dropped
            found = [features[source], self.edge(f"{name}.same{target}", features[source], 1)]
            if source > 0:
                found.append(self.edge(f"{name}.down{target}", features[source - 1], 2))
            results.append(np.concatenate(found, axis=3))
        return results

    def edge(self, name, x, stride):
        y = self.norm_relu(f"{name}.norm1", self.conv(f"{name}.conv1", x))
        return self.norm_relu(f"{name}.norm2", self.conv(f"{name}.conv2", y, stride))

    def multi_scale_transition(self, name, unit, features):
        return [self.conv_norm_relu(f"{name}.scale{i}", x) for i, x in enumerate(features)]

    def head(self, name, head, x):
        if type(head).__name__ == "ConvHead":
            for k in (1, 2):
                x = self.norm_relu(f"{name}.norm{k}", self.conv(f"{name}.conv{k}", x, 2))
        else:
            x = self.norm_relu(f"{name}.norm", x)
        kernel, bias = (self.weights[f"{name}.linear.{k}"] for k in ("kernel", "bias"))
        return x.mean(axis=(1, 2)) @ kernel + bias

    def norm_relu_conv(self, name, x, layers, stride=1):
        return self.conv(f"{name}.{layers[1]}", self.norm_relu(f"{name}.{layers[0]}", x), stride)

    def conv_norm_relu(self, name, x, stride=1):
        return self.norm_relu(f"{name}.norm", self.conv(f"{name}.conv", x, stride))

    def conv(self, name, x, stride=1):
        kernel = self.weights[f"{name}.kernel"]
        size = len(kernel)
        _, height, width, _ = x.shape
        padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        total = 0.0
        for di in range(size):
            for dj in range(size):
                window = padded[:, di : di + height : stride, dj : dj + width : stride]
                total = total + window @ kernel[di, dj]
        return total

    def norm_relu(self, name, x):
        mean, var = self.weights[f"{name}.mean"], self.weights[f"{name}.var"]
        if self.training:
            mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            self.statistics |= {f"{name}.mean": mean, f"{name}.var": var}
            self.counts[name] = x.size // x.shape[-1]
        y = (x - mean) / np.sqrt(var + EPSILON)
        return np.maximum(self.weights[f"{name}.scale"] * y + self.weights[f"{name}.bias"], 0.0)


def average_pool(x):
    """Of 2x2."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def max_pool(x):
    """Of 3x3 with stride 2, nothing beyond the border."""
    _, height, width, _ = x.shape
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(x, border, constant_values=-np.inf)
    windows = [
        padded[:, di : di + height : 2, dj : dj + width : 2] for di in range(3) for dj in range(3)
    ]
    return np.max(windows, axis=0)


def training_loss(spec, weights, images, labels) -> float:
    """The sum over exits of the mean cross-entropy, with batch statistics."""
    return float(sum(training_losses(spec, weights, images, labels)))


def training_losses(spec, weights, images, labels) -> list[float]:
    """The mean cross-entropy of each exit, with batch statistics."""
    losses = []
    for logits in Oracle(spec, weights, training=True).logits(images):
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        losses.append((log_sum - shifted[np.arange(len(labels)), labels]).mean())
    return losses
