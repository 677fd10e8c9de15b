"""A `Learner` in JAX."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from loss_balance.backends.jax import export_state, import_state, init
from loss_balance.experiments.data.augment import constants
from loss_balance.experiments.data.dataset import Arrays
from loss_balance.experiments.data.sources import Dataset, Images, Labels
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.crew import ALONE, Crew
from loss_balance.experiments.training.learners.interface import prefixed, under
from loss_balance.experiments.training.learners.jax_devices import Layout
from loss_balance.experiments.training.learners.jax_step import (
    Carried,
    Structure,
    compiled,
    sgd,
    taken_apart,
)
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.own import network
from loss_balance.reference_models.description.own import NetSpec
from loss_balance.reference_models.jax import AnytimeNet
from loss_balance.schemes.base import Scheme


def use_one_thread() -> None:
    """One thread for all runs of this process, if called before JAX makes its first array.

    XLA reads then how many threads its pool shall have. Its flags do not say it: with
    `xla_cpu_multi_thread_eigen=false` jaxlib 0.10 still takes every core.

    Runs may share a GPU, so none takes most of its memory in advance.
    """
    os.environ["NPROC"] = "1"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class JaxLearner:
    """Network, SGD and balancer of one run; the training split lives on each device too."""

    def __init__(self, run: Run, data: Dataset, crew: Crew = ALONE) -> None:
        self.crew = crew
        self.layout: Layout = Layout(run.engine)
        self.spec: NetSpec = run.spec
        self.scheme: Scheme = run.scheme
        recipe = run.recipe
        with jax.default_device(self.layout.device):
            dtype = jnp.bfloat16 if run.engine.precision == "bfloat16" else None
            structure, parameters, statistics = taken_apart(
                network(run.spec, "jax", run.seed, dtype=dtype)
            )
            self.structure: Structure = structure
            self.carried: Any = self.layout.everywhere(
                Carried(
                    parameters,
                    statistics,
                    sgd(recipe.momentum, recipe.weight_decay).init(parameters),
                    init(run.scheme),
                    jnp.zeros(len(run.spec.exits)) if run.scheme.observes == "gradients" else None,
                )
            )
        self._step, self._evaluate = compiled(
            self.structure,
            run.scheme,
            recipe.momentum,
            recipe.weight_decay,
            run.coupling,
            run.steps(len(data.y_train)),
            self.layout.whole,
        )
        prepared = constants(data.augmentation, data.input_shape, data.mean, data.std)
        self.constants: Any = self.layout.everywhere(prepared)
        self.resident: Any = None
        if feed.resident(data):
            self.resident = self.layout.everywhere((data.x_train, data.y_train))

    def train_epoch(
        self, batches: Iterable[feed.Batch], rate: float, on_step: Callable[[int, float], None]
    ) -> NDArray[np.float64]:
        every = []
        for step, batch in enumerate(batches):
            split = self.resident or self.layout.divided((batch.images, batch.labels))
            rows = self.layout.divided((batch.chosen, batch.draws))
            self.carried, losses = self._step(self.carried, self.constants, *split, *rows, rate)
            every.append(losses)
            if step % 10 == 0:  # not every step: reading the loss waits for the device
                on_step(step, float(np.asarray(losses)[-1]))
        mean: NDArray[np.float64] = np.mean(jax.device_get(every), axis=0, dtype=np.float64)
        return mean

    def evaluate(
        self, batches: Iterable[tuple[Images, Labels]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sums = np.zeros((2, len(self.spec.exits)))
        count = 0
        for images, labels in batches:
            parameters, statistics, *_ = self.carried
            split = self.layout.divided((images, labels))
            scores = self._evaluate(parameters, statistics, self.constants, *split)
            sums += jax.device_get(scores)
            count += len(labels)
        loss, error = sums / count
        return loss, error

    def loss_weights(self) -> list[float]:
        weights: list[float] = np.asarray(self.carried.balance.weights).tolist()
        return weights

    def weights(self) -> Arrays:
        return self._net().dump_weights()

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        net = self._net()
        net.load_weights(weights)
        _, parameters, statistics = taken_apart(net)
        loaded = self.carried._replace(parameters=parameters, statistics=statistics)
        self.carried = self.layout.everywhere(loaded)

    def state(self) -> Arrays:
        """`net`, `momentum` and `balance`, the first two under the spec's names."""
        momenta = optax.tree_utils.tree_get(self.carried.optimizer, "trace")
        momentum = self.structure.net(momenta, self.carried.statistics).dump_weights()
        return {
            **prefixed("net", self.weights()),
            **prefixed("momentum", {name: momentum[name] for name in self.spec.parameters()}),
            **prefixed("balance", export_state(self.carried.balance)),
            **({} if self.carried.norms is None else {"norms": np.asarray(self.carried.norms)}),
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        net, other = self._net(), self._net()
        net.load_weights(under("net", state))
        _, parameters, statistics = taken_apart(net)
        still = {name: state[f"net/{name}"] for name in self.spec.statistics()}
        other.load_weights({**still, **under("momentum", state)})
        _, momenta, _ = taken_apart(other)
        optimizer = optax.tree_utils.tree_set(self.carried.optimizer, trace=momenta)
        balanced = import_state(under("balance", state), self.scheme)
        norms = None if self.carried.norms is None else jnp.asarray(state["norms"])
        loaded = Carried(parameters, statistics, optimizer, balanced, norms)
        self.carried = self.layout.everywhere(loaded)

    def _net(self) -> AnytimeNet:
        return self.structure.net(self.carried.parameters, self.carried.statistics)
