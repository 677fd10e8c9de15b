"""The contract of balancers as JAX's functions and module keep it; needs jax, flax and orbax."""

from __future__ import annotations

import pickle
from functools import partial

import jax
import jax.numpy as jnp
from support.balancers.contract import GradientContract
from support.balancers.contract_forks import Pass, chain
from support.balancers.jax_tools import compiled, convert

from loss_balance import AdaLoss, Scheme
from loss_balance.backends.interface import check_priorities, exit_index
from loss_balance.backends.jax import (
    balance,
    export_state,
    fork,
    guidance,
    import_state,
    init,
    metrics,
    reset,
)


class JaxContract(GradientContract):
    a_step = 200  # caches of JAX's own come and go
    wide = jnp.float64

    def step(self, balancer, losses, mask=None, dtype="float32", *, wrap=lambda x: x, **options):
        for name in {"priorities", "norms"} & set(options):
            options[name] = jnp.array(options[name])
        with jax.enable_x64(dtype == "float64"):
            return self.call(balancer, wrap(convert(losses, dtype)), mask, **options)

    ways = ("usual", "compiled", "recomputed")

    def forked(self, balancer, x, heads, dtype, way, *, probe):
        again = partial(jax.checkpoint, static_argnums=2) if way == "recomputed" else lambda s: s

        def total(x, heads, probe):
            fork = partial(balancer.fork, probe=probe)
            losses, read = chain(fork, x, heads, jnp.tanh, jnp.sum, again)
            return sum(losses), (jnp.stack(losses), jnp.stack(read))

        run = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
        x, heads = (jnp.array(a, dtype) for a in (x, heads))
        run = jax.jit(run) if way == "compiled" else run
        (trunk, heads, norms), kept = run(x, heads, jnp.zeros(3) if probe else None)
        return Pass(*kept, trunk, heads, norms)

    def guided(self, balancer, logits, **options):
        run = jax.value_and_grad(partial(balancer.guidance, **options))
        total, gradient = run(jnp.array(logits))
        return float(total), gradient

    def dtype_of(self, total):
        return total.dtype.name


class Loop:
    """The pure functions as a training loop uses them: the first call eager, the rest compiled."""

    def __init__(
        self, scheme, *, names=None, priorities=None, dtype=jnp.float32, equilibrium=False, pull=1.0
    ):
        self.equilibrium, self.pull = equilibrium, pull
        self.scheme = scheme if isinstance(scheme, Scheme) else AdaLoss(scheme)
        self.names = None if names is None else tuple(names)
        self.priorities = check_priorities(priorities, self.scheme.num_losses)
        self.state = init(scheme, dtype)
        self.metrics()  # refuses names that do not fit

    def fork(self, features, index, probe=None):
        if not self.equilibrium:  # a function cannot know
            exit_index(index, self.names, self.scheme.num_losses, equilibrium=False)
        return fork(
            features,
            index,
            self.state,
            self.scheme,
            names=self.names,
            priorities=self.priorities,
            probe=probe,
            pull=self.pull,
        )

    def guidance(self, logits, **options):
        return guidance(logits, self.state, self.scheme, **options)

    def __call__(self, losses, mask=None, training=True, priorities=None, update=True, norms=None):
        a_tree = isinstance(losses, (list, tuple, dict, jax.Array))  # jit takes nothing else
        call = compiled if self.state.step and a_tree else balance
        total, self.state = call(
            losses,
            self.state,
            self.scheme,
            names=self.names,
            mask=mask,
            priorities=None
            if self.equilibrium and priorities is None
            else (self.priorities if priorities is None else priorities),
            update=update,
            training=training,
            equilibrium=self.equilibrium,
            norms=norms,
        )
        return total

    def export_state(self):
        return export_state(self.state, self.scheme, self.names)

    def import_state(self, exported, **options):
        self.state = import_state(exported, self.scheme, names=self.names, **options)

    def reset(self, *losses):
        self.state = reset(self.state, self.scheme, *losses, names=self.names)

    def metrics(self):
        return metrics(self.state, self.names, self.scheme)


class FunctionsContract(JaxContract):
    def make(self, scheme, *, dtype=jnp.float32, **options):
        with jax.enable_x64(dtype == jnp.float64):
            return Loop(scheme, dtype=dtype, **options)

    def call(self, balancer, losses, mask, **options):
        return balancer(losses, mask, **options)

    def stepping(self, balancer):
        return lambda losses: balancer(jnp.array(losses))

    def gradient(self, balancer, losses, dtype="float32"):
        call = partial(balance, state=balancer.state, scheme=balancer.scheme)
        found, balancer.state = jax.grad(call, has_aux=True)(convert(losses, dtype))
        return [float(x) for x in found]

    def gradient_of_square(self, balancer, x, scales):
        def total(x):
            return balance([scale * x**2 for scale in scales], balancer.state, balancer.scheme)

        found, balancer.state = jax.jit(jax.grad(total, has_aux=True))(x)
        return float(found)

    def evaluate(self, balancer, losses):
        return float(balancer(convert(losses, "float32"), training=False))

    def save(self, balancer, path):
        path.write_bytes(pickle.dumps(balancer.state))

    def load(self, balancer, path):
        balancer.state = pickle.loads(path.read_bytes())

    # The one promise that pure functions do not make: JAX orders any pytree itself.
    test_a_mapping_without_names_is_refused = None
    warns_once = False  # a function cannot know that it has warned before
