"""What is published for TensorFlow: EnCodec's balancer in loss-balancer-tf, beside `Balancer`.

In a loop of one's own: does what a checkpoint keeps go on, does a NaN end it, does it run in a
tf.function.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.findings import Finding, failed
from loss_balance.backends.tensorflow import Balancer

TABLE = "TensorFlow, in a loop of one's own"
BEFORE, AFTER = 20, 20  # steps
NAN_AT = 10


class Ours:
    """The layer."""

    def __init__(self) -> None:
        self.balance = Balancer(2)

    def gradients(self, tape: Any, losses: Any, output: Any, variables: Any) -> Any:
        del output
        with tape:  # goes on recording
            total = self.balance(losses, training=True)
        return tape.gradient(total, variables)

    def saved(self) -> dict[str, Any]:
        """What tf.train.Checkpoint can keep of it."""
        return {"balance": self.balance}


class Theirs:
    """The package's object, which is none that a checkpoint can keep."""

    def __init__(self) -> None:
        from loss_balancer_tf import loss_balancer_tf

        self.balancer = loss_balancer_tf.LossBalancer({"a": 1.0, "b": 1.0})

    def gradients(self, tape: Any, losses: Any, output: Any, variables: Any) -> Any:
        named = dict(zip("ab", losses, strict=True))
        return self.balancer.gradient(named, tape, output, variables)[0]

    def saved(self) -> dict[str, Any]:
        """Nothing; what it keeps are variables of a plain object."""
        try:
            tf.train.Checkpoint(balancer=self.balancer)
        except ValueError:
            return {}
        return {"balancer": self.balancer}


WAYS: dict[str, Callable[[], Any]] = {
    "Balancer(AdaLoss)": Ours,
    "loss-balancer-tf LossBalancer": Theirs,
}


class Run:
    """A network, an optimiser and a way."""

    def __init__(self, make: Callable[[], Any], *, traced: bool = False) -> None:
        keras.utils.set_random_seed(0)
        self.net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        self.optimizer = keras.optimizers.SGD(0.01)
        self.optimizer.build(self.net.trainable_variables)
        self.way = make()
        self.step = tf.function(self.eager) if traced else self.eager

    def eager(self, x: Any, y: Any, factor: Any) -> None:
        """One step; the first loss is multiplied. One without finite gradients is not taken."""
        variables = self.net.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            output = self.net(x)
            errors = tf.reduce_mean((output - y) ** 2, axis=0)
            losses = [errors[0] * factor, errors[1]]
        gradients = self.way.gradients(tape, losses, output, variables)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
        kept = [tf.where(finite, each, tf.zeros_like(each)) for each in gradients]
        self.optimizer.apply_gradients(zip(kept, variables, strict=True))

    def train(self, start: int, stop: int, nan_at: int | None = None) -> Run:
        """Steps on batches that are the same in every run."""
        for k in range(start, stop):
            rng = np.random.default_rng(k)
            x = rng.normal(size=(16, 8)).astype("float32")
            y = x[:, :2] * np.array([3.0, 0.3], np.float32)
            factor = float("nan") if k == nan_at else 1.0
            self.step(tf.constant(x), tf.constant(y), tf.constant(factor))
        return self

    def weights(self) -> Any:
        """The network's, in one vector."""
        return np.concatenate([np.ravel(each) for each in self.net.get_weights()])


def kept(make: Callable[[], Any]) -> str:
    """A checkpoint is written and read into fresh objects."""
    run, again = Run(make).train(0, BEFORE), Run(make)
    with tempfile.TemporaryDirectory() as folder:
        held = [{"net": r.net, "optimizer": r.optimizer, **r.way.saved()} for r in (run, again)]
        path = tf.train.Checkpoint(**held[0]).write(str(Path(folder, "saved")))
        tf.train.Checkpoint(**held[1]).read(path)
        for each in (run, again):
            each.train(BEFORE, BEFORE + AFTER)
    if np.array_equal(run.weights(), again.weights()):
        return "yes"
    off = np.linalg.norm(run.weights() - again.weights()) / np.linalg.norm(run.weights())
    why = "" if len(held[0]) > 2 else "nothing to save; "
    return f"no: {why}network {100 * off:.2g} % off"


def survives(make: Callable[[], Any]) -> str:
    """One loss is NaN once; is the network trained on after it?"""
    run = Run(make).train(0, BEFORE, NAN_AT)
    before = run.weights()
    after = run.train(BEFORE, BEFORE + AFTER).weights()
    if not np.isfinite(after).all():
        return "lost: the network is not finite"
    return "lost: no step is finite from then on" if np.array_equal(before, after) else "goes on"


def traced(make: Callable[[], Any]) -> str:
    """The step in a tf.function, beside the same without it."""
    eager, graph = Run(make).train(0, BEFORE), Run(make, traced=True).train(0, BEFORE)
    off = np.linalg.norm(eager.weights() - graph.weights()) / np.linalg.norm(eager.weights())
    return "yes" if off < 1e-4 else f"no: network {100 * off:.2g} % off"


QUESTIONS = {"a saved run goes on": kept, "NaN once": survives, "in a tf.function": traced}


def probe() -> Iterator[Finding]:
    """Three cells a way."""
    for title, make in WAYS.items():
        for column, ask in QUESTIONS.items():
            try:
                yield Finding(TABLE, title, column, ask(make))
            except Exception as error:  # of any package, of any kind: that is the finding
                yield Finding(TABLE, title, column, failed(error))


if __name__ == "__main__":
    for finding in probe():
        print(finding.line(), flush=True)
