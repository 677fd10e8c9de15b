"""`AnytimeNet` of TensorFlow, through NumPy."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from loss_balance.backends.tensorflow import Balancer
from loss_balance.experiments.data.dataset import Labels
from loss_balance.experiments.verification.probes import InputImages, Logits, Pulls
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights
from loss_balance.reference_models.tensorflow import AnytimeNet
from loss_balance.schemes.base import Scheme
from loss_balance.schemes.fixed import Static


class TensorFlowProbe:
    """A `Probe`."""

    def network(self, spec: AnytimeSpec, seed: int = 0) -> AnytimeNet:
        return AnytimeNet(spec, seed)

    def trainable_size(self, spec: AnytimeSpec) -> int:
        return sum(math.prod(v.shape) for v in AnytimeNet(spec).trainable_variables)

    def predict(self, net: AnytimeNet, images: InputImages) -> Logits:
        return [logits.numpy() for logits in net(images, training=False)]

    def anytime(self, net: AnytimeNet, images: InputImages) -> Generator[NDArray[Any], Any, None]:
        answers, kept = net.anytime(images), None
        while True:
            try:
                logits = answers.send(kept)
            except StopIteration:
                return
            kept = yield logits.numpy()

    def gradients(
        self, net: AnytimeNet, images: InputImages, labels: Labels, pulls: Pulls = None
    ) -> tuple[Logits, Weights]:
        weights, strength = ((1.0,) * len(net.spec.exits), 0.0) if pulls is None else pulls
        balance = Balancer(Static(weights), equilibrium=pulls is not None)
        with tf.GradientTape() as tape:
            answers = net(images, training=True, fork=balance.fork if pulls else None)
            total = balance.guidance(answers, strength) + balance(cross_entropies(answers, labels))
        variables = {name: v for name, v in net.named_variables() if v.trainable}
        gradients = tape.gradient(total, [v.value for v in variables.values()])
        found = dict(zip(variables, (g.numpy() for g in gradients), strict=True))
        return [logits.numpy() for logits in answers], found

    def train(
        self,
        net: AnytimeNet,
        scheme: Scheme,
        images: InputImages,
        labels: Labels,
        *,
        steps: int,
        learning_rate: float,
    ) -> NDArray[np.float64]:
        balance, optimizer = Balancer(scheme), keras.optimizers.SGD(learning_rate)
        optimizer.build(net.trainable_variables)

        def step() -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = tf.stack(cross_entropies(net(images, training=True), labels))
                total = balance(losses)
            variables = net.trainable_variables
            optimizer.apply(tape.gradient(total, [v.value for v in variables]), variables)
            return losses

        compiled = tf.function(step)
        return np.array([compiled().numpy() for _ in range(steps)], np.float64)


def cross_entropies(answers: list[Any], labels: Labels) -> list[Any]:
    """Each exit's mean over the batch."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return [loss(labels, logits) for logits in answers]
