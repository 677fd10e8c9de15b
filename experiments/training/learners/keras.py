"""A `Learner` in Keras on TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from loss_balance import LinearSchedule
from loss_balance.backends.tensorflow import Balancer
from loss_balance.experiments.data.augment import (
    Constants,
    Draws,
    augmented,
    constants,
    standardised,
)
from loss_balance.experiments.data.dataset import Arrays
from loss_balance.experiments.data.sources import Dataset, Images, Labels
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.crew import ALONE, Crew
from loss_balance.experiments.training.learners.interface import prefixed, under
from loss_balance.experiments.training.learners.keras_replicas import (
    MEAN,
    SUM,
    OneDevice,
    Replicas,
    average_statistics,
    norm_together,
    place_of,
    tensor,
)
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.own import network
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.reference_models.description.own import NetSpec

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def use_one_thread() -> None:
    """One thread for all runs of this process, if called before TensorFlow computes anything.

    Runs may share a GPU, so none takes most of its memory in advance.
    """
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


class TensorFlowLearner:
    """Network, SGD and balancer of one run; the training split lives on each device too."""

    def __init__(self, run: Run, data: Dataset, crew: Crew = ALONE) -> None:
        self.crew: Crew = crew
        self.spec: NetSpec = run.spec
        self.place: OneDevice | Replicas = place_of(run.engine)
        self.recipe: Recipe = run.recipe
        with self.place.scope():
            self.net: Any = network(
                run.spec, "tensorflow", run.seed, dtype=POLICIES[run.engine.precision]
            )
            self.local_norms: bool = run.engine.batch_norm == "local" and self.place.count > 1
            if self.place.count > 1 and not self.local_norms:
                norm_together(self.net)
            self.coupling: Coupling = run.coupling
            self.strength: float | LinearSchedule = run.coupling.strength(
                run.steps(len(data.y_train))
            )
            self.balance: Any = Balancer(
                run.scheme, equilibrium=run.coupling.equilibrium, pull=run.coupling.pull
            )
            follows = run.scheme.observes == "gradients"
            # The norms of the exits' gradients in the last step, where the scheme follows them.
            self.norms: tf.Variable | None = (
                tf.Variable(tf.zeros(len(run.spec.exits))) if follows else None
            )
            self.parameters: dict[str, Any] = {
                name: variable.value
                for name, variable in self.net.named_variables()
                if variable.trainable
            }
            self.momenta: dict[str, tf.Variable] = {
                name: tf.Variable(tf.zeros_like(parameter), trainable=False)
                for name, parameter in self.parameters.items()
            }
            prepared = constants(data.augmentation, data.input_shape, data.mean, data.std)
            self.constants: Constants = Constants(*map(tensor, prepared))
        self.resident: tuple[Any, Any] | None = None
        if feed.resident(data):
            self.resident = (
                self.place.everywhere(data.x_train),
                self.place.everywhere(data.y_train),
            )
        self._step = tf.function(
            self.place.jointly(self._step_losses), autograph=False, jit_compile=run.engine.compiled
        )
        dtype = np.dtype(np.uint8) if data.streamed else data.x_train.dtype
        self._scores = tf.function(
            self.place.jointly(self._batch_scores),
            autograph=False,
            input_signature=(
                tf.TensorSpec((None, *data.input_shape), dtype),
                tf.TensorSpec((None,), tf.int64),
            ),
        )

    def train_epoch(
        self, batches: Iterable[feed.Batch], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        step = -1
        with self.place.scope():
            learning_rate = tf.constant(rate, tf.float32)  # a number would be traced anew
            sums = tf.zeros(len(self.spec.exits), tf.float64)
            for step, batch in enumerate(batches):
                losses = self._step(*self._inputs(batch), learning_rate)
                sums += tf.cast(losses, tf.float64)
                if step % 10 == 0:  # not every step: reading the loss waits for the device
                    on_step(step, float(losses[-1]))
            if self.local_norms:
                average_statistics(self.net)
        means: NDArray[np.float64] = sums.numpy() / (step + 1)
        return means

    def _inputs(self, batch: feed.Batch) -> tuple[Any, Any, Any, Draws]:
        """(images, labels, index, draws) on the device."""
        images, labels = self.resident or (tensor(batch.images), tensor(batch.labels))
        return images, labels, tensor(batch.chosen), Draws(*map(tensor, batch.draws))

    def _step_losses(self, images: Any, labels: Any, index: Any, draws: Draws, rate: Any) -> Any:
        """One step of SGD; the mean cross-entropy of each exit over the batch, (num_exits,)."""
        index, draws = self.place.own(index), Draws(*map(self.place.own, draws))
        x = augmented(images, index, draws, self.constants, tf)
        probe = None if self.norms is None else tf.zeros_like(self.norms)
        norms = None if self.norms is None else tf.identity(self.norms)
        with tf.GradientTape() as tape:
            if probe is not None:
                tape.watch(probe)
            fork = partial(self.balance.fork, probe=probe) if self.coupling.equilibrium else None
            logits = tf.stack(self.net(x, training=True, fork=fork))
            losses = tf.reduce_mean(exit_losses(logits, tf.gather(labels, index)), axis=1)
            taught = self._guidance(logits)  # by the weights that the forks had
            total = self.balance(losses, norms=norms) + taught
        probes = [] if probe is None else [probe]
        gradients, found = tape.gradient(total, (self.parameters, probes))
        if self.norms is not None:
            self.norms.assign(self.place.norms(*found))
        self._descend(self.place.reduced(MEAN, gradients), rate)
        return self.place.reduced(MEAN, losses)

    def _guidance(self, logits: Any) -> Any:
        if not self.coupling.guidance:
            return 0.0
        return self.balance.guidance(logits, self.strength, self.coupling.temperature)

    def _descend(self, gradients: dict[str, Any], rate: Any) -> None:
        """SGD as PyTorch has it: weight decay joins the gradient, the rate is outside the momentum.

        Keras has the rate inside, so that each fall of it would leave the last steps' rate behind.
        """
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            if len(parameter.shape) > 1:  # a kernel
                gradient += self.recipe.weight_decay * parameter
            tf.raw_ops.ResourceApplyMomentum(  # m = momentum m + gradient, parameter -= rate m
                var=parameter.handle,
                accum=self.momenta[name].handle,
                lr=rate,
                grad=gradient,
                momentum=self.recipe.momentum,
            )

    def evaluate(
        self, batches: Iterable[tuple[Images, Labels]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count = 0
        with self.place.scope():
            sums = tf.zeros((2, len(self.spec.exits)), tf.float64)
            for images, labels in batches:
                sums += self._scores(tensor(images), tensor(labels))
                count += len(labels)
        loss, error = sums.numpy() / count
        return loss, error

    def _batch_scores(self, images: Any, labels: Any) -> Any:
        """Sums over the batch of cross-entropies and errors of each exit, (2, num_exits)."""
        images, labels = self.place.own(images), self.place.own(labels)
        logits = tf.stack(self.net(standardised(images, self.constants, tf), training=False))
        wrong = tf.argmax(logits, axis=2) != labels
        scores = tf.stack((exit_losses(logits, labels), tf.cast(wrong, tf.float32)))
        return self.place.reduced(SUM, tf.reduce_sum(tf.cast(scores, tf.float64), axis=2))

    def loss_weights(self) -> list[float]:
        weights: list[float] = self.balance.loss_weights.numpy().tolist()
        return weights

    def weights(self) -> Arrays:
        weights: Arrays = self.net.dump_weights()
        return weights

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.net.load_weights(weights)

    def state(self) -> Arrays:
        """`net`, `momentum` and `balance`, the first two under the spec's names."""
        momenta = {name: momentum.numpy() for name, momentum in self.momenta.items()}
        return {
            **prefixed("net", self.weights()),
            **prefixed("momentum", momenta),
            **prefixed("balance", self.balance.export_state()),
            **({} if self.norms is None else {"norms": self.norms.numpy()}),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.net.load_weights(under("net", state))
        self.balance.import_state(under("balance", state))
        if self.norms is not None:
            self.norms.assign(state["norms"])
        momenta = under("momentum", state)
        for name, momentum in self.momenta.items():
            momentum.assign(momenta[name])


def exit_losses(logits: Any, labels: Any) -> Any:
    """Cross-entropy of each exit and image, (num_exits, B), in one kernel for all exits."""
    repeated = tf.broadcast_to(labels, tf.shape(logits)[:2])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(repeated, logits)
