"""The contract of balancers as JAX's functions and module keep it; needs jax, flax and orbax."""

from __future__ import annotations

import pickle
from functools import partial

import jax
import jax.numpy as jnp
from support.balancers.contract import GradientContract
from support.balancers.jax_tools import compiled, convert

from loss_balance import AdaLoss, Scheme
from loss_balance.backends.interface import check_priorities
from loss_balance.backends.jax import (
    balance,
    export_state,
    import_state,
    init,
    metrics,
    reset,
)


class JaxContract(GradientContract):
    wide = jnp.float64

    def step(self, balancer, losses, mask=None, dtype="float32", *, wrap=lambda x: x, **options):
        if "priorities" in options:
            options["priorities"] = jnp.array(options["priorities"])
        with jax.enable_x64(dtype == "float64"):
            return self.call(balancer, wrap(convert(losses, dtype)), mask, **options)

    def dtype_of(self, total):
        return total.dtype.name


class Loop:
    """The pure functions as a training loop uses them: the first call eager, the rest compiled."""

    def __init__(self, scheme, *, names=None, priorities=None, dtype=jnp.float32):
        self.scheme = scheme if isinstance(scheme, Scheme) else AdaLoss(scheme)
        self.names = None if names is None else tuple(names)
        self.priorities = check_priorities(priorities, self.scheme.num_losses)
        self.state = init(scheme, dtype)
        self.metrics()  # refuses names that do not fit

    def __call__(self, losses, mask=None, training=True, priorities=None, update=True):
        a_tree = isinstance(losses, (list, tuple, dict, jax.Array))  # jit takes nothing else
        call = compiled if self.state.step and a_tree else balance
        total, self.state = call(
            losses,
            self.state,
            self.scheme,
            names=self.names,
            mask=mask,
            priorities=self.priorities if priorities is None else priorities,
            update=update,
            training=training,
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
