"""The networks in float64 NumPy, written from the paper: shares no code with the package.

Only fields of the spec are read (`units`, `exits`, `in_channels`, ...). Images and maps are
(B, H, W, C).
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
        x = self.conv("stem.conv", np.asarray(images, np.float64))
        answers = []
        for i, unit in enumerate(self.spec.units):
            x = self.residual_unit(f"unit{i}", x, unit)
            if i in self.spec.exits:
                pooled = self.norm_relu(f"exit{i}.norm", x).mean(axis=(1, 2))
                kernel, bias = (self.weights[f"exit{i}.linear.{k}"] for k in ("kernel", "bias"))
                answers.append(pooled @ kernel + bias)
        return answers

    def residual_unit(self, name, x, unit):
        y = self.conv(f"{name}.conv1", self.norm_relu(f"{name}.norm1", x), unit.stride)
        y = self.conv(f"{name}.conv2", self.norm_relu(f"{name}.norm2", y))
        if unit.stride == 2:
            x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        zeros = np.zeros((*x.shape[:3], (unit.out_channels - unit.in_channels) // 2))
        return y + np.concatenate((zeros, x, zeros), axis=3)

    def conv(self, name, x, stride=1):
        kernel = self.weights[f"{name}.kernel"]
        _, height, width, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = 0.0
        for di in range(3):
            for dj in range(3):
                total = total + padded[:, di : di + height, dj : dj + width] @ kernel[di, dj]
        return total[:, ::stride, ::stride]

    def norm_relu(self, name, x):
        mean, var = self.weights[f"{name}.mean"], self.weights[f"{name}.var"]
        if self.training:
            mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            self.statistics |= {f"{name}.mean": mean, f"{name}.var": var}
            self.counts[name] = x.size // x.shape[-1]
        y = (x - mean) / np.sqrt(var + EPSILON)
        return np.maximum(self.weights[f"{name}.scale"] * y + self.weights[f"{name}.bias"], 0.0)


def training_loss(spec, weights, images, labels) -> float:
    """The sum over exits of the mean cross-entropy, with batch statistics."""
    total = 0.0
    for logits in Oracle(spec, weights, training=True).logits(images):
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        total += (log_sum - shifted[np.arange(len(labels)), labels]).mean()
    return float(total)
