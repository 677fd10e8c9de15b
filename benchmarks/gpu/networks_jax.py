"""The networks in JAX: the learner's training step in bfloat16, and stopping at batch 1."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.gpu import plan, stopping_rows, training_rows
from benchmarks.gpu.attempts import Attempts
from benchmarks.gpu.options import Options
from benchmarks.gpu.training_rows import Built
from benchmarks.timing import on_host
from loss_balance import AdaLoss, Constant, Scheme
from loss_balance.backends.jax import init
from loss_balance.experiments.data.augment import Augmentation, constants, draws
from loss_balance.experiments.training.learners.jax_step import Carried, compiled, sgd, taken_apart
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.jax import AnytimeNet

MOMENTUM, WEIGHT_DECAY, RATE = 0.9, 1e-4, 1e-3


class Training:
    """`JaxLearner`'s step on one batch that stays on the device; the images are only standardised.

    Compiled when it is made.
    """

    def __init__(self, group: plan.Group, trial: plan.Trial) -> None:
        self.spec = group.spec() if trial.exits == "all" else group.spec().single_exit(-1)
        exits = len(self.spec.exits)
        scheme: Scheme = AdaLoss(exits) if trial.exits == "all" else Constant(exits)
        net = AnytimeNet(self.spec, checkpoint=trial.checkpoint, dtype=jnp.bfloat16)
        structure, parameters, statistics = taken_apart(net)
        momenta = sgd(MOMENTUM, WEIGHT_DECAY).init(parameters)
        carried = Carried(parameters, statistics, momenta, init(scheme))
        self.carried, self.inputs = jax.device_put((carried, _inputs(self.spec, group.batch)))
        step, _ = compiled(structure, scheme, MOMENTUM, WEIGHT_DECAY)
        lowered: Any = step
        self.compiled = lowered.lower(self.carried, *self.inputs).compile()

    def __call__(self) -> None:
        self.carried, _ = self.compiled(self.carried, *self.inputs)

    def wait(self) -> object:
        """Waits until the device has finished."""
        return jax.block_until_ready(self.carried)  # type: ignore[no-untyped-call]

    def peak_mib(self) -> float | None:
        """MiB that the compiler planned, arguments included; None if it does not tell."""
        plan = self.compiled.memory_analysis()
        if plan is None:
            return None
        sizes = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        return float(sizes - plan.alias_size_in_bytes) / 2**20


def _inputs(spec: AnytimeSpec, batch: int) -> tuple[Any, ...]:
    """What the step takes beside what it carries."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, *spec.input_shape), np.float32)
    labels = rng.integers(spec.num_classes, size=batch).astype(np.int32)
    channels = spec.input_shape[-1]
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    prepared = constants(Augmentation(), spec.input_shape, zeros, ones)
    drawn = draws(Augmentation(), 0, 0, batch)
    return prepared, images, labels, np.arange(batch, dtype=np.int32), drawn, np.float32(RATE)


def build(group: plan.Group, trial: plan.Trial) -> Built:
    """The step, after its first run."""
    begun = time.perf_counter()
    step = Training(group, trial)
    step()
    step.wait()
    first_s = time.perf_counter() - begun
    return Built(step, step.spec.costs()[-1].multiply_adds, step.peak_mib(), first_s)


def _timed(step: Any, inner: int) -> float:
    return on_host(step.wait)(step, inner)


def stop(job: Attempts, spec: AnytimeSpec, most: int) -> None:
    """Stopping one network, in float32: compiled between exits, and as a call compiled whole."""
    net = AnytimeNet(spec)
    net.eval()  # type: ignore[no-untyped-call]
    graph, state = nnx.split(net)
    arrays, structure = jax.tree.flatten(state)  # a call with a state takes far longer

    @jax.jit
    def whole(arrays: list[Any], x: Any) -> Any:
        return nnx.merge(graph, jax.tree.unflatten(structure, arrays))(x)

    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, *spec.input_shape), np.float32))
    call = partial(whole, arrays)
    jax.block_until_ready(call(x))  # type: ignore[no-untyped-call]
    stopping_rows.add_rows(job, spec.name, "compiled segments", net.anytime, call, x, most)


def main(options: Options) -> int:
    """Training steps and stopping, in order of what they tell; the exit status."""
    if options.smallest:
        jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]
    device = jax.devices()[0].device_kind
    job = Attempts("jax", "jax", "networks", options, device, jax.clear_caches)
    groups = plan.jax()
    if options.smallest:
        groups = plan.smallest(groups[3:4])  # compiling is what takes seconds
    most = 3 if options.smallest else 200
    stopped = plan.stopping(smallest=options.smallest)[:1]
    for i, group in enumerate(groups):
        training_rows.run(job, group, build, _timed, smallest=options.smallest)
        compiled.cache_clear()
        for spec in stopped[i : i + 1]:
            job.attempt(f"{spec.name}, stopping", partial(stop, job, spec, most), 20.0)
    return job.results.finish()


if __name__ == "__main__":
    raise SystemExit(main(Options.read(__doc__, 40)))
